"""What is different between two datasets, said as an operator would say it.

Answers layer by layer which areas were added, ended, renamed, re-coded, merged or split, which
ground changed hands between areas that go on, and which stretches of special roads came, went or
got another operator. It promises that whatever `overlay` finds is in exactly one change, and says
what was left out. It needs the areas that `build` keeps, and nothing but.

Areas of which one ended or was added belong together if they share more than 1 % of the ground of
that one, slivers apart. Of such a group several into one is a merger, one into several a split, and
an ended one into an added one, with nobody else in it, the same area *re-coded*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import shapely

from boundaries.areas import LayerAreas, LayerNotFoundError, read_areas
from boundaries.dataset import open_dataset
from boundaries.overlay import Move, Overlay, Slivers, overlay
from boundaries.shapes import polygons, square_metres
from georouter.model import Road

TELLING: Final = 0.01
"""The share of an area's ground from which on it says where the area came from or went to."""

_WIDEST_ROAD_SLIVER_M: Final = 10.0  # the ground of a road is some 30 m wide

KINDS: Final = {
    "recoded": "has another code",
    "merged": "several areas became one, or part of one",
    "split": "one area became several, or gave part of it to new ones",
    "reorganised": "several areas became several others",
    "added": "on ground that was nobody's",
    "ended": "its ground is nobody's now",
    "renamed": "has another name",
    "moved": "ground went from an area to another, both go on",
    "stretch added": "a special road where there was none",
    "stretch ended": "no special road any more",
    "operator": "another body mends the road",
    "dates": "the road is in force from or to another day",
}
"""The kinds of changes in the order in which they are told."""

Progress = Callable[[str, float], None]


class Named(NamedTuple):
    """An area or a stretch of road, by code and name."""

    code: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is different; `old` and `new` are who it was and who it is.

    `m2` of ground are concerned, in `places` pieces, `lon` and `lat` being in the biggest; `ground`
    is all of it, in degrees.
    """

    kind: str
    layer: str
    old: tuple[Named, ...]
    new: tuple[Named, ...]
    m2: float
    lon: float
    lat: float
    places: int
    ground: Any = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class LayerDiff:
    """The changes of a layer, and what was left out of them."""

    layer: str
    old_areas: int
    new_areas: int
    changes: tuple[Change, ...]
    slivers: Slivers


@dataclass(frozen=True, slots=True)
class Diff:
    """All that is different between two datasets; `only_old`, `only_new` are layers of one only."""

    old: str
    new: str
    layers: tuple[LayerDiff, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]

    @property
    def changes(self) -> list[Change]:
        """Those of all layers."""
        return [change for layer in self.layers for change in layer.changes]


def diff_datasets(
    old: Path,
    new: Path,
    *,
    layers: Iterable[str] = (),
    min_m2: float = 0.0,
    progress: Progress = lambda _stage, _share: None,
) -> Diff:
    """Compare two dataset folders in some layers, by default in all that both have.

    Raises `DatasetError` and `IndexFormatError`, and `LayerNotFoundError` for a layer that neither
    has.
    """
    datasets = [open_dataset(folder) for folder in (old, new)]
    before, after = ({one.layer: one for one in read_areas(folder)} for folder in (old, new))
    wanted = list(dict.fromkeys(layers)) or [
        *after,
        *(name for name in before if name not in after),
    ]
    for name in wanted:
        if name not in before and name not in after:
            have = ", ".join({**after, **before})
            raise LayerNotFoundError(f"neither dataset has a layer {name!r}; they have {have}")
    both = [name for name in wanted if name in before and name in after]
    found = []
    for n, name in enumerate(both):

        def show(stage: str, share: float, n: int = n, name: str = name) -> None:
            progress(f"{name}: {stage}", (n + share) / len(both))

        layer = before[name], after[name]
        roads = [dataset.roads.get(name, {}) for dataset in datasets]
        if all(roads):
            either = {**roads[0], **roads[1]}
            found.append(diff_roads(*layer, either, min_m2=min_m2, progress=show))
        else:
            found.append(diff_areas(*layer, min_m2=min_m2, progress=show))
    return Diff(
        old=datasets[0].version,
        new=datasets[1].version,
        layers=tuple(found),
        only_old=tuple(name for name in wanted if name not in after),
        only_new=tuple(name for name in wanted if name not in before),
    )


# --- areas --------------------------------------------------------------------------------------


def diff_areas(
    old: LayerAreas,
    new: LayerAreas,
    *,
    min_m2: float = 0.0,
    progress: Progress = lambda _stage, _share: None,
) -> LayerDiff:
    """Compare two editions of a layer of areas."""
    laid = overlay(old, new, min_m2=min_m2, progress=progress)
    was, is_ = (dict(zip(one.codes, one.names, strict=True)) for one in (old, new))
    groups, rest = _groups(laid, was.keys() - is_.keys(), is_.keys() - was.keys())
    changes = [_group_change(group, old, new, was, is_) for group in groups]
    for move in rest:
        source = [Named(move.source, was[move.source])] if move.source else []
        target = [Named(move.target, is_[move.target])] if move.target else []
        changes.append(_of_moves("moved", new.layer, source, target, [move]))
    return _told(old, new, [*changes, *_renamed(old, new)], laid.slivers)


class _Group(NamedTuple):
    """Ended and added areas that belong together, those that go on beside them, and the moves."""

    old: set[str]
    new: set[str]
    moves: list[Move]


def _groups(laid: Overlay, ended: set[str], added: set[str]) -> tuple[list[_Group], list[Move]]:
    """The groups of areas that ended or were added, and the moves that do not make groups."""
    gave, got = _totals(laid.moves, "source"), _totals(laid.moves, "target")
    # an area may have a code in both roles, so each role is a node of its own
    group_of = {("old", code): _Group({code}, set(), []) for code in sorted(ended)}
    group_of |= {("new", code): _Group(set(), {code}, []) for code in sorted(added)}
    rest = []
    for move in laid.moves:
        source, target = move.source, move.target
        telling = (source in ended and move.m2 > TELLING * gave[source]) or (
            target in added and move.m2 > TELLING * got[target]
        )
        if not telling:
            rest.append(move)
            continue
        one, other = group_of.get(("old", source or "")), group_of.get(("new", target or ""))
        into = one or other
        assert into is not None  # noqa: S101 - either ended or was added
        if one and other and one is not other:
            one.old.update(other.old)
            one.new.update(other.new)
            one.moves.extend(other.moves)
            for node, group in group_of.items():
                if group is other:
                    group_of[node] = one
        into.moves.append(move)
        into.old.update([source] if source else [])
        into.new.update([target] if target else [])
    return list({id(group): group for group in group_of.values()}.values()), rest


def _totals(moves: Iterable[Move], end: str) -> dict[str | None, float]:
    found: dict[str | None, float] = {}
    for move in moves:
        code = getattr(move, end)
        found[code] = found.get(code, 0.0) + move.m2
    return found


def _group_change(
    group: _Group, old: LayerAreas, new: LayerAreas, was: Mapping[str, str], is_: Mapping[str, str]
) -> Change:
    before, after = sorted(group.old), sorted(group.new)
    match len(before), len(after):
        case 0, _:
            kind = "added"
        case _, 0:
            kind = "ended"
        case 1, 1 if before[0] not in is_ and after[0] not in was:
            kind = "recoded"
        case _, 1 if after[0] in was or before[1:]:
            kind = "merged"
        case 1, _:
            kind = "split"
        case _:
            kind = "reorganised"
    told = [Named(code, was[code]) for code in before], [Named(code, is_[code]) for code in after]
    if group.moves:
        return _of_moves(kind, new.layer, *told, group.moves)
    # nothing but slivers, as of islets where the coast is drawn boldly
    areas, code = (old, before[0]) if before else (new, after[0])
    return _of_area(kind, areas, code, *told)


def _of_moves(
    kind: str, layer: str, old: Iterable[Named], new: Iterable[Named], moves: Sequence[Move]
) -> Change:
    biggest = max(moves, key=lambda move: move.m2)
    return Change(
        kind=kind,
        layer=layer,
        old=tuple(old),
        new=tuple(new),
        m2=sum(move.m2 for move in moves),
        lon=biggest.lon,
        lat=biggest.lat,
        places=sum(move.places for move in moves),
        ground=shapely.multipolygons(
            [part for move in moves for part in shapely.get_parts(move.ground)]
        ),
    )


def _of_area(
    kind: str, areas: LayerAreas, code: str, old: Iterable[Named], new: Iterable[Named]
) -> Change:
    """A change of all of an area."""
    ground = polygons(areas)[areas.codes.index(code)]
    inside = shapely.point_on_surface(ground)
    return Change(
        kind=kind,
        layer=areas.layer,
        old=tuple(old),
        new=tuple(new),
        m2=float(square_metres(ground)),
        lon=float(inside.x),
        lat=float(inside.y),
        places=len(shapely.get_parts(ground)),
        ground=ground,
    )


def _told(
    old: LayerAreas, new: LayerAreas, changes: Iterable[Change], slivers: Slivers
) -> LayerDiff:
    order = list(KINDS)
    told = sorted(changes, key=lambda one: (order.index(one.kind), -one.m2, one.old, one.new))
    return LayerDiff(new.layer, len(old.codes), len(new.codes), tuple(told), slivers)


# --- special roads ------------------------------------------------------------------------------


def diff_roads(
    old: LayerAreas,
    new: LayerAreas,
    roads: Mapping[str, Road],
    *,
    min_m2: float = 0.0,
    progress: Progress = lambda _stage, _share: None,
) -> LayerDiff:
    """Compare two editions of a roads layer; `roads` says what the codes of both stand for."""
    laid = overlay(
        old,
        new,
        min_m2=min_m2,
        widest_m=_WIDEST_ROAD_SLIVER_M,
        group=lambda code: roads[code].number,
        progress=progress,
    )
    names = dict(zip((*old.codes, *new.codes), (*old.names, *new.names), strict=True))
    changes = []
    for move in laid.moves:
        before, after = (roads.get(code or "") for code in (move.source, move.target))
        if before is None or after is None:
            kind = "stretch ended" if before else "stretch added"
        else:
            kind = "operator" if before.body != after.body else "dates"
        source = [Named(move.source, names[move.source])] if move.source else []
        target = [Named(move.target, names[move.target])] if move.target else []
        changes.append(_of_moves(kind, new.layer, source, target, [move]))
    return _told(old, new, [*changes, *_renamed(old, new)], laid.slivers)


def _renamed(old: LayerAreas, new: LayerAreas) -> list[Change]:
    was = dict(zip(old.codes, old.names, strict=True))
    return [
        _of_area("renamed", new, code, [Named(code, was[code])], [Named(code, name)])
        for code, name in zip(new.codes, new.names, strict=True)
        if was.get(code, name) != name
    ]


# --- words --------------------------------------------------------------------------------------


def sentence(change: Change) -> str:
    """A change in one line: who, how much, and where the biggest piece is."""
    old, new = (_list(some) for some in (change.old, change.new))
    what = {
        "recoded": f"{old} is {new}",
        "merged": f"{old} → {new}",
        "split": f"{old} → {new}",
        "reorganised": f"{old} → {new}",
        "renamed": f"{old} is called {change.new[0].name!r}" if change.new else "",
        "moved": f"from {old} to {new}",
        "operator": f"{old} → {new}",
        "dates": f"{old} → {new}",
    }.get(change.kind, old if change.old else new)
    places = f" in {change.places} places, the biggest" if change.places > 1 else ""
    return (
        f"{change.kind:<13}  {what}: {_ground(change.m2)}{places} "
        f"at {change.lat:.5f}, {change.lon:.5f}"
    )


def left_out(slivers: Slivers) -> str:
    """What was left out of a layer's changes, in one line."""
    return (
        f"left out: {slivers.count:,} slivers, {_ground(slivers.m2)} in all, narrower than "
        f"{slivers.width_m:.0f} m (on the coast {slivers.coast_width_m:.0f} m) or smaller than "
        "--min-m2"
    )


def _list(some: Sequence[Named]) -> str:
    return ", ".join(f"{one.name} ({one.code})" for one in some) or "nobody"


def _ground(m2: float) -> str:
    return f"{m2 / 1e6:,.1f} km²" if m2 >= 1e5 else f"{m2:,.0f} m²"


def as_json(diff: Diff) -> dict[str, Any]:
    """The diff without its geometries."""
    return {
        "old": diff.old,
        "new": diff.new,
        "only_old": list(diff.only_old),
        "only_new": list(diff.only_new),
        "layers": [
            {
                "layer": layer.layer,
                "areas": {"old": layer.old_areas, "new": layer.new_areas},
                "changes": [
                    {
                        "kind": one.kind,
                        "old": [named._asdict() for named in one.old],
                        "new": [named._asdict() for named in one.new],
                        "m2": round(one.m2, 1),
                        "places": one.places,
                        "lon": round(one.lon, 7),
                        "lat": round(one.lat, 7),
                    }
                    for one in layer.changes
                ],
                "left_out": dataclasses.asdict(layer.slivers),
            }
            for layer in diff.layers
        ],
    }
