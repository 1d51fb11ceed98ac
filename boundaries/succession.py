"""Replaces areas whose authorities have ended by those of their successors.

Promises layers as they are on a day: wherever an ended area was, its successors' ground, put
together of whole areas that some layer has, and what became of which. It draws no border that no
source has; a successor that takes half of an area needs a source of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import shapely

from boundaries.metres import square_metres
from boundaries.readers import Features, SourceError
from georouter.model import Succession, Successor


class _Area(NamedTuple):
    name: str
    geometry: Any


def succeed(
    layers: Mapping[str, Features], successions: Iterable[Succession], *, as_of: date
) -> tuple[dict[str, Features], dict[str, list[dict[str, Any]]]]:
    """The layers, of canonical polygons, as they are on a day; and per layer what was replaced.

    Successors come into every layer that has an area that ended. Their areas are sought in that
    layer first. Raises `SourceError` when one is in no layer.
    """
    now = {
        layer: dict(zip(one.codes, map(_Area, one.names, one.geometries), strict=True))
        for layer, one in layers.items()
    }
    ever = {layer: dict(areas) for layer, areas in now.items()}
    told: dict[str, list[dict[str, Any]]] = {}
    for one in sorted(successions, key=lambda succession: succession.on):
        if one.on > as_of:
            continue
        for layer, areas in now.items():
            ended = {code: areas.pop(code) for code in one.ends if code in areas}
            if ended:
                told.setdefault(layer, []).append(_take_over(one, layer, ended, areas, ever))
        for layer, areas in now.items():
            ever[layer] |= areas
    after = {}
    for layer, areas in now.items():
        codes = sorted(areas)
        geometries = np.empty(len(codes), dtype=object)
        geometries[:] = [areas[code].geometry for code in codes]
        names = tuple(areas[code].name for code in codes)
        after[layer] = replace(
            layers[layer], codes=tuple(codes), names=names, geometries=geometries
        )
    return after, told


def _take_over(
    succession: Succession,
    layer: str,
    ended: Mapping[str, _Area],
    areas: dict[str, _Area],
    ever: Mapping[str, Mapping[str, _Area]],
) -> dict[str, Any]:
    """Put the successors into a layer; say for the manifest what that did."""
    before = [area.geometry for area in ended.values()]
    after = []
    for heir in succession.successors:
        taken = [_find(code, heir, succession, layer, ever) for code in heir.areas] or before
        if heir.code in areas:  # one that was there already, and grows
            before.append(areas[heir.code].geometry)
            taken = [*taken, areas[heir.code].geometry]
        areas[heir.code] = _Area(heir.name, shapely.union_all(taken))
        after.append(areas[heir.code].geometry)
    old, new = shapely.union_all(before), shapely.union_all(after)
    return {
        "on": succession.on.isoformat(),
        "reason": succession.reason,
        "to_be_checked": succession.to_be_checked,
        "ended": sorted(ended),
        "successors": {heir.code: list(heir.areas) for heir in succession.successors},
        # both are 0 where the borders of the layers, and the list of areas, agree
        "gained_m2": _m2(shapely.difference(new, old)),
        "lost_m2": _m2(shapely.difference(old, new)),
    }


def _find(
    code: str,
    heir: Successor,
    succession: Succession,
    layer: str,
    ever: Mapping[str, Mapping[str, _Area]],
) -> Any:
    for areas in (ever[layer], *ever.values()):
        if code in areas:
            return areas[code].geometry
    raise SourceError(
        f"no layer has the area {code!r}, which {heir.name!r} takes over ({succession.reason}); "
        "add a layer with it, or correct successions.toml"
    )


def _m2(geometry: Any) -> float:
    (m2,) = square_metres(np.array([geometry], dtype=object))
    return round(float(m2), 1)
