"""Draws areas, and what is different between two datasets, for people to look at.

A picture is a PNG with the right proportions at its latitude, a scale bar, a legend, and whom the
data come from. Colours are those of Okabe and Ito ("Color Universal Design", 2008), which people
with any colour vision tell apart. Lines are simplified to a pixel: a picture proves nothing, the
diff does.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Final

import numpy as np
import shapely

from boundaries.areas import LayerAreas, read_areas
from boundaries.dataset import attribution, read_manifest
from boundaries.diff import Change, Diff, LayerDiff, sentence
from boundaries.readers import Geometries
from boundaries.shapes import polygons
from georouter.nearest import metres_per_degree

COLOURS: Final[Mapping[str, str]] = {
    "recoded": "#56B4E9",
    "merged": "#E69F00",
    "split": "#009E73",
    "reorganised": "#CC79A7",
    "added": "#0072B2",
    "ended": "#D55E00",
    "renamed": "#999999",
    "moved": "#F0E442",
    "stretch added": "#0072B2",
    "stretch ended": "#D55E00",
    "operator": "#CC79A7",
    "dates": "#009E73",
}
_LAND, _BORDER, _OLD, _NEW = "#F4F2EC", "#9A968C", "#D55E00", "#0072B2"
_DPI: Final = 150
_LONGEST_INCHES, _SHORTEST_INCHES = 11.0, 4.5
_MOST_NUMBERS: Final = 40  # more would hide the map
_MARGIN: Final = 0.35
_LEAST_VIEW_M: Final = 400.0
_LEAST_SHARE: Final = 0.05
_DOT_PIXELS: Final = 10

Box = tuple[float, float, float, float]


class PictureError(Exception):
    """A picture that cannot be written; the message says what to do."""


def draw_dataset(folder: Path, out: Path, *, layers: Sequence[str] = ()) -> list[Path]:
    """Draw the layers of a dataset, each in a picture of its own; returns where they are.

    Raises `PictureError` and `DatasetError`.
    """
    manifest = read_manifest(folder)
    some = read_areas(folder, layers=layers)
    drawn = []
    for areas in some:
        drawn.append(_one_of(out, areas.layer, alone=not some[1:]))
        title = f"{areas.layer}: {len(areas.codes)} areas of {manifest['version']}"
        draw_layer(areas, drawn[-1], title=title, attribution=attribution(manifest, [areas.layer]))
    return drawn


def draw_diff(
    diff: Diff,
    old: Path,
    new: Path,
    overview: Path | None,
    each: Path | None,
    *,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> list[Path]:
    """Draw the diff of two dataset folders: all changes of a layer, and each in the folder `each`.

    Returns where the pictures are. Raises `PictureError` and `DatasetError`.
    """
    manifests = [read_manifest(folder) for folder in (old, new)]
    before, after = ({one.layer: one for one in read_areas(folder)} for folder in (old, new))
    drawn: list[Path] = []
    if each:
        try:
            each.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PictureError(f"{each} cannot be made: {error.strerror}") from None
    for layer in diff.layers:
        both = before[layer.layer], after[layer.layer]
        sources = (attribution(one, [layer.layer]) for one in manifests)
        credit = "; ".join(dict.fromkeys(sources))
        if overview:
            drawn.append(_one_of(overview, layer.layer, alone=not diff.layers[1:]))
            title = f"{layer.layer}: what changed from {diff.old} to {diff.new}"
            draw_overview(*both, layer, drawn[-1], title=title, attribution=credit)
        for n, change in enumerate(layer.changes if each else (), start=1):
            progress(f"drawing {layer.layer}", n / len(layer.changes))
            drawn.append((each or Path()) / file_name(n, change))
            title = " ".join(sentence(change).split())
            draw_change(*both, change, drawn[-1], title=title, attribution=credit)
    return drawn


def _one_of(out: Path, layer: str, *, alone: bool) -> Path:
    """The file for a layer: `out` if it is the only one, else with the layer in its name."""
    return out if alone else out.with_name(f"{out.stem}-{layer}{out.suffix}")


def draw_layer(areas: LayerAreas, out: Path, *, title: str, attribution: str) -> None:
    """Draw the areas of a layer, neighbours in different shades. Raises `PictureError`."""
    shapes = polygons(areas)
    canvas = _Canvas(_grown(tuple(shapely.total_bounds(shapes)), 0.03), title, attribution)
    shades = ["#E8EEF4", "#F6EBD5", "#E1F0EA", "#F3E4EE", "#F4F2EC"]
    groups = _shades(shapes, len(shades))
    # what is narrower than a line is drawn as one: roads
    narrow = bool(np.median(shapely.area(shapes) / shapely.length(shapes)) < canvas.pixel)
    for n, shade in enumerate(shades):
        edge, width = (_NEW, 1.2) if narrow else (_BORDER, 0.4)
        canvas.fill(shapes[groups == n], shade, edge=edge, width=width)
    if len(areas.codes) <= _MOST_NUMBERS:
        for shape, name in zip(shapes, areas.names, strict=True):
            canvas.name(shape, name)
    canvas.save(out)


def draw_overview(
    old: LayerAreas, new: LayerAreas, diff: LayerDiff, out: Path, *, title: str, attribution: str
) -> None:
    """Draw all changes of a layer in one picture, numbered as they are told."""
    shapes = polygons(new)
    everything = np.concatenate([shapes, polygons(old)])
    canvas = _Canvas(_grown(tuple(shapely.total_bounds(everything)), 0.03), title, attribution)
    canvas.fill(shapes, _LAND, edge=_BORDER, width=0.3)
    for change in reversed(diff.changes):  # the first, of whole areas, stay on top
        canvas.fill([change.ground], COLOURS[change.kind], edge="black", width=0.5, least_dot=True)
    for n, change in enumerate(diff.changes[:_MOST_NUMBERS], start=1):
        canvas.number(change.lon, change.lat, n)
    counts = {one.kind: 0 for one in diff.changes}
    for one in diff.changes:
        counts[one.kind] += 1
    canvas.legend(
        [(COLOURS[kind], f"{kind} ({count})") for kind, count in counts.items()]
        or [(_LAND, "nothing has changed")]
    )
    canvas.save(out)


def draw_change(
    old: LayerAreas, new: LayerAreas, change: Change, out: Path, *, title: str, attribution: str
) -> None:
    """Draw one change: its ground, the old borders dashed, the new ones solid, and who is who."""
    box = _grown(_worth_seeing(change.ground).bounds, _MARGIN)
    canvas = _Canvas(box, title, attribution)
    frame = shapely.box(*box)
    before, after = (_seen(one, frame) for one in (old, new))
    canvas.fill([shape for shape, _, _ in after], _LAND, edge="none", width=0)
    canvas.fill([change.ground], COLOURS[change.kind], edge="black", width=0.4, least_dot=True)
    canvas.outline([shape for shape, _, _ in after], _NEW, "solid", 1.8)
    canvas.outline([shape for shape, _, _ in before], _OLD, (0, (4, 3)), 1.2)
    for _, part, name in after:
        canvas.name(part, name)
    canvas.legend(
        [
            (COLOURS[change.kind], change.kind),
            (_NEW, "borders now", "solid"),
            (_OLD, "borders before", "dashed"),
        ]
    )
    canvas.save(out)


def _worth_seeing(ground: Any) -> Any:
    """All of the ground; where that would be too thin to see, a stretch of the biggest piece."""
    parts = shapely.get_parts(ground)
    biggest = parts[int(np.argmax(shapely.area(parts)))]
    for shown in (ground, biggest):
        if shown.area >= _LEAST_SHARE * shown.envelope.area:
            return shown
    return shapely.point_on_surface(biggest).buffer(20 * biggest.area / biggest.length)


def file_name(n: int, change: Change) -> str:
    """A name for the picture of a change, in the order in which changes are told."""
    codes = "-".join(one.code for one in (*change.old, *change.new))
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", f"{change.layer}-{change.kind}-{codes}")
    return f"{n:03}-{plain[:80].strip('-')}.png"


def _seen(areas: LayerAreas, frame: Any) -> list[tuple[Any, Any, str]]:
    """The areas that are in the frame: whole, what of them is in it, and their names."""
    shapes = polygons(areas)
    near = shapely.STRtree(shapes).query(frame, predicate="intersects").tolist()
    cut = shapely.intersection(shapes[near], frame)
    return [(shapes[n], part, areas.names[n]) for n, part in zip(near, cut, strict=True)]


def _shades(shapes: Geometries, count: int) -> Any:
    """A number for each area, so that neighbours seldom share one: the first that is free."""
    tree = shapely.STRtree(shapes)
    chosen = np.full(len(shapes), -1)
    near: dict[int, list[int]] = {}
    for one, other in tree.query(shapes).T.tolist():  # whose boxes meet
        near.setdefault(one, []).append(other)
    for one in range(len(shapes)):
        taken = np.bincount(chosen[near[one]] + 1, minlength=count + 1)[1:]
        chosen[one] = int(np.argmin(taken))
    return chosen


def _grown(box: Any, share: float) -> Box:
    west, south, east, north = (float(edge) for edge in box)
    lon_m, lat_m = metres_per_degree((south + north) / 2)
    longest = max((east - west) * lon_m, (north - south) * lat_m, _LEAST_VIEW_M)
    # a strip is shown with ground about it: no side is less than half the other
    wide = max((east - west) * lon_m, longest / 2) / lon_m + 2 * share * longest / lon_m
    high = max((north - south) * lat_m, longest / 2) / lat_m + 2 * share * longest / lat_m
    x, y = (west + east) / 2, (south + north) / 2
    return x - wide / 2, y - high / 2, x + wide / 2, y + high / 2


class _Canvas:
    """A map of a box in degrees, drawn by matplotlib without a display."""

    def __init__(self, box: Box, title: str, attribution: str) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        west, south, east, north = self._box = box
        self._lon_m, self._lat_m = metres_per_degree((south + north) / 2)
        aspect = (east - west) * self._lon_m / ((north - south) * self._lat_m)
        wide = min(_LONGEST_INCHES, max(_SHORTEST_INCHES, 9.0 * aspect))
        high = max(_SHORTEST_INCHES * 0.75, wide / aspect)
        side = 0.15
        heading = fill(title, int((wide + 2 * side) * 9.5), max_lines=3, placeholder=" …")
        credit = fill(
            f"Source: {attribution}", int((wide + 2 * side) * 16), max_lines=3, placeholder=" …"
        )
        head, foot = (
            0.25 + 0.2 * len(heading.splitlines()),
            0.2 + 0.13 * len(credit.splitlines()),
        )
        figure = Figure(figsize=(wide + 2 * side, high + head + foot), dpi=_DPI)
        FigureCanvasAgg(figure)
        whole_w, whole_h = figure.get_size_inches()
        axes = figure.add_axes((side / whole_w, foot / whole_h, wide / whole_w, high / whole_h))
        axes.set_xlim(west, east)
        axes.set_ylim(south, north)
        axes.set_aspect(self._lat_m / self._lon_m)
        axes.set_facecolor("#DCE9F2")
        axes.set_xticks([])
        axes.set_yticks([])
        figure.text(
            side / whole_w, 1 - 0.12 / whole_h, heading, va="top", fontsize=11, fontweight="bold"
        )
        figure.text(side / whole_w, 0.1 / whole_h, credit, va="bottom", fontsize=7, color="#444444")
        self._figure, self._axes = figure, axes
        self.pixel = (east - west) / (wide * _DPI)
        self._named: list[Any] = []
        self._scale_bar()

    def fill(
        self,
        shapes: Iterable[Any],
        colour: str,
        *,
        edge: str,
        width: float,
        least_dot: bool = False,
    ) -> None:
        """Fill polygons; with `least_dot` what is too small to see gets a dot."""
        from matplotlib.collections import PathCollection
        from matplotlib.path import Path as Outline

        outlines = []
        dots = []
        for shape in shapely.simplify(list(shapes), self.pixel / 2).tolist():
            for part in shapely.get_parts(shape).tolist():
                rings = [shapely.get_coordinates(ring) for ring in shapely.get_rings(part)]
                if not rings:
                    continue
                outlines.append(Outline.make_compound_path(*map(_closed, rings)))
                if np.ptp(rings[0], axis=0).max() < _DOT_PIXELS * self.pixel:
                    dots.append(rings[0].mean(axis=0))
        if least_dot and dots:
            self._axes.plot(
                *np.transpose(dots), "o", ms=6, mfc=colour, mec="black", mew=0.6, zorder=4
            )
        self._axes.add_collection(
            PathCollection(outlines, facecolor=colour, edgecolor=edge, linewidth=width)
        )

    def outline(self, shapes: Iterable[Any], colour: str, style: Any, width: float) -> None:
        """Draw the borders of polygons, shared ones once: dashes on dashes would fill up."""
        from matplotlib.collections import LineCollection

        frame = shapely.box(*self._box)
        borders = shapely.union_all(shapely.intersection(shapely.boundary(list(shapes)), frame))
        drawn = shapely.get_parts(shapely.simplify(shapely.line_merge(borders), self.pixel / 2))
        lines = [shapely.get_coordinates(one) for one in drawn if one.geom_type == "LineString"]
        self._axes.add_collection(
            LineCollection(lines, colors=colour, linestyles=[style], linewidths=width, zorder=3)
        )

    def name(self, shape: Any, name: str) -> None:
        """Write a name into an area, where there is room for it."""
        text = fill(name, 18)
        lines = text.splitlines()
        wide, high = 10 * max(map(len, lines)) * self.pixel, 18 * len(lines) * self.pixel
        west, south, east, north = shape.bounds
        if east - west < 0.8 * wide or north - south < high:
            return
        inside = shapely.point_on_surface(shape)
        room = shapely.box(
            inside.x - wide / 2, inside.y - high / 2, inside.x + wide / 2, inside.y + high / 2
        )
        if shapely.box(*self._box).contains(room) and not any(map(room.intersects, self._named)):
            self._named.append(room)
            self._axes.text(inside.x, inside.y, text, zorder=6, **_halo(8))

    def number(self, lon: float, lat: float, n: int) -> None:
        """Write a number beside a place."""
        self._axes.text(lon, lat, str(n), zorder=7, **_halo(8, weight="bold"))

    def legend(self, entries: Sequence[tuple[str, ...]]) -> None:
        """Explain colours, and lines where an entry has a style."""
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        handles: list[Any] = []
        for colour, label, *style in entries:
            if style:
                handles.append(Line2D([], [], color=colour, ls=style[0], lw=1.8, label=label))
            else:
                handles.append(Patch(facecolor=colour, edgecolor="black", lw=0.5, label=label))
        legend = self._axes.legend(handles=handles, loc="upper right", fontsize=8, framealpha=0.9)
        legend.set_zorder(9)

    def save(self, out: Path) -> None:
        """Write the picture; it appears whole or not at all."""
        content = io.BytesIO()
        self._figure.savefig(content, format="png", dpi=_DPI, metadata={"Software": None})
        partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
        try:
            partial.write_bytes(content.getvalue())
            partial.replace(out)
        except OSError as error:
            raise PictureError(f"{out} cannot be written: {error.strerror}") from None
        finally:
            partial.unlink(missing_ok=True)

    def _scale_bar(self) -> None:
        """A bar of a round length, about a fifth of the width."""
        west, south, east, north = self._box
        fifth_m = (east - west) * self._lon_m / 5
        tens = 10.0 ** np.floor(np.log10(fifth_m))
        length_m = max(step * tens for step in (1, 2, 5) if step * tens <= fifth_m)
        x, y = west + (east - west) * 0.03, south + (north - south) * 0.03
        end = x + length_m / self._lon_m
        self._axes.plot([x, end], [y, y], color="black", lw=3, solid_capstyle="butt", zorder=8)
        label = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
        self._axes.text(
            (x + end) / 2, y + (north - south) * 0.01, label, zorder=8, **_halo(8, va="bottom")
        )


def _closed(ring: Any) -> Any:
    from matplotlib.path import Path as Outline

    return Outline(ring, closed=True)


def _halo(size: int, *, va: str = "center", weight: str = "normal") -> dict[str, Any]:
    from matplotlib.patheffects import withStroke

    return {
        "fontsize": size,
        "fontweight": weight,
        "ha": "center",
        "va": va,
        "clip_on": True,
        "path_effects": [withStroke(linewidth=2.5, foreground="white")],
    }
