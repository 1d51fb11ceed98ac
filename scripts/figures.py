"""What the benchmark of the index says: figures with their targets, two tables and a plot.

Nothing is measured here. A figure carries its target and whether that is met, so that the table and
the line of JSON cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

OURS: Final = "georouter"
INVENTED: Final = "invented"
"""What the names of invented coverages begin with."""

_AHEAD: Final = 8.0
_STEADY: Final = 4.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    `ratio` says how many times better than the best of `peers`; `peer` is that one's name.
    """

    key: str
    what: str
    unit: str
    ours: float | None
    target: str
    met: bool | None
    peers: Mapping[str, float]
    peer: str | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Growth:
    """One set of polygons; lookups in microseconds, bulk in million points a second."""

    name: str
    polygons: int
    vertices: int
    p50_us: float
    p99_us: float
    shapely_p50_us: float
    shapely_p99_us: float
    of_first: float  # p50 against that of the first set
    bulk: float
    shapely_bulk: float
    artefact_mb: float
    parquet_mb: float
    open_ms: float
    build_s: float

    @property
    def ahead(self) -> float:
        """How many times faster than shapely a lookup is, in the median."""
        return self.shapely_p50_us / self.p50_us

    @property
    def met(self) -> bool:
        """Whether lookups are far enough ahead, and take about as long as on the first set."""
        return self.ahead >= _AHEAD and self.of_first <= _STEADY


def faster(key: str, what: str, unit: str, taken: Mapping[str, float], least: float) -> Figure:
    """Times by contestant; 0 for `least` is no target."""
    peers = {name: each for name, each in taken.items() if name != OURS}
    best = min(peers, key=lambda name: peers[name])
    return _against(key, what, unit, taken[OURS], peers, best, peers[best] / taken[OURS], least)


def more(key: str, what: str, unit: str, rates: Mapping[str, float], least: float) -> Figure:
    """Rates by contestant; 0 for `least` is no target."""
    peers = {name: each for name, each in rates.items() if name != OURS}
    best = max(peers, key=lambda name: peers[name])
    return _against(key, what, unit, rates[OURS], peers, best, rates[OURS] / peers[best], least)


def _against(
    key: str,
    what: str,
    unit: str,
    ours: float,
    peers: Mapping[str, float],
    best: str,
    ratio: float,
    least: float,
) -> Figure:
    return Figure(
        key=key,
        what=what,
        unit=unit,
        ours=ours,
        target=f">= {least:g} x" if least else "",
        met=ratio >= least if least else None,
        peers=peers,
        peer=best,
        ratio=ratio,
    )


def limited(key: str, what: str, unit: str, ours: float | None, most: float) -> Figure:
    """A figure without peers; None is one that this system does not tell."""
    met = ours < most if ours is not None else None
    return Figure(key, what, unit, ours, f"< {most:g} {unit}", met, {})


def figures_table(figures: Sequence[Figure]) -> str:
    """A line per figure under a heading."""
    lines = [f"{'':42}{OURS:>10}{'peer':>10} {'':5}{'ratio':>9}  {'target':11}{'':8}peer"]
    for figure in figures:
        peer = figure.peers[figure.peer] if figure.peer else None
        ratio = f"{_number(figure.ratio)} x" if figure.ratio else ""
        met = {None: "", True: "met", False: "MISSED"}[figure.met]
        lines.append(
            f"{figure.what:42}{_number(figure.ours):>10}{_number(peer):>10} {figure.unit:5}"
            f"{ratio:>9}  {figure.target:11}{met:8}{figure.peer or ''}".rstrip()
        )
    return "\n".join(lines)


def growth_table(growth: Sequence[Growth]) -> str:
    """A line per set of polygons under a heading."""
    title = (
        f"growth: lookups in us, bulk in M points/s; p50 is to be >= {_AHEAD:g} x ahead of shapely "
        f"and <= {_STEADY:g} x that of the first row"
    )
    heading = (
        f"{'':15}{'polygons':>9}{'vertices':>11}{'p50':>7}{'p99':>7}{'shapely p50':>13}{'p99':>7}"
        f"{'ahead':>9}{'of 1st':>8}{'':8}{'bulk':>6}{'shapely':>9}{'MB':>8}{'parquet':>9}"
        f"{'open ms':>9}{'build s':>9}"
    )
    rows = [
        f"{row.name:15}{row.polygons:9,}{row.vertices:11,}{row.p50_us:7.2f}{row.p99_us:7.1f}"
        f"{row.shapely_p50_us:13.1f}{row.shapely_p99_us:7.0f}"
        f"{row.ahead:7.1f} x{row.of_first:6.1f} x {'met' if row.met else 'MISSED':7}"
        f"{row.bulk:6.1f}{row.shapely_bulk:9.2f}"
        f"{row.artefact_mb:8.1f}{row.parquet_mb:9.1f}{row.open_ms:9.1f}{row.build_s:9.1f}"
        for row in growth
    ]
    return "\n".join([title, heading, *rows])


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def plot(growth: Sequence[Growth], path: Path) -> None:
    """Latency and size against polygons and vertices."""
    import matplotlib as mpl  # noqa: PLC0415 - slow to import, and rarely wanted

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from matplotlib import ticker  # noqa: PLC0415

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), sharex="col", sharey="row")
    for nth, across in enumerate(("polygons", "vertices")):
        latency, size = axes[0][nth], axes[1][nth]
        _draw(latency, growth, across, "p50_us", f"{OURS}, median", "C0-")
        _draw(latency, growth, across, "p99_us", f"{OURS}, 99th percentile", "C0:")
        _draw(latency, growth, across, "shapely_p50_us", "shapely, median", "C1-")
        _draw(latency, growth, across, "shapely_p99_us", "shapely, 99th percentile", "C1:")
        _draw(size, growth, across, "artefact_mb", f"{OURS} artefact", "C0-")
        _draw(size, growth, across, "parquet_mb", "GeoParquet file", "C1-")
        size.set_xlabel(across)
        for axis, lowest in ((latency, "p50_us"), (size, "parquet_mb")):
            axis.set(xscale="log", yscale="log", xmargin=0.12)
            axis.grid(visible=True, which="both", alpha=0.2)
            axis.xaxis.set(major_formatter=ticker.EngFormatter(sep=""))
            axis.xaxis.set(minor_formatter=ticker.NullFormatter())
            axis.yaxis.set(major_formatter=ticker.FormatStrFormatter("%g"))
            for row in growth:
                if not row.name.startswith(INVENTED):
                    at = getattr(row, across), getattr(row, lowest)
                    away = {"xytext": (0, -14), "textcoords": "offset points", "ha": "center"}
                    axis.annotate(row.name, at, fontsize=8, **away)
    axes[0][0].set_ylabel("one lookup, microseconds")
    axes[1][0].set_ylabel("size, MB")
    for row_of_axes in axes:
        lowest, highest = row_of_axes[0].get_ylim()
        row_of_axes[0].set_ylim(lowest / 1.5, highest * 4)  # room for names and the legend
        row_of_axes[0].legend(fontsize=8, loc="upper left", ncols=2)
    figure.suptitle("Growth: lines join invented coverages, squares are given boundaries")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw(
    axis: Any, growth: Sequence[Growth], across: str, field: str, label: str, style: str
) -> None:
    for invented in (True, False):
        rows = [row for row in growth if row.name.startswith(INVENTED) is invented]
        x, y = [getattr(row, across) for row in rows], [getattr(row, field) for row in rows]
        if invented:
            axis.plot(x, y, style, marker="o", markersize=4, label=label)
        else:
            hollow = "white" if style.endswith("-") else "none"
            axis.plot(x, y, f"{style[:2]}s", markerfacecolor=hollow)
