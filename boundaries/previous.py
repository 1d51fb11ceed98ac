"""Compares a layer with the same one of an earlier dataset: who is gone, new, or another size.

Needs of the earlier dataset its manifest and its index, and no geometry: sizes are in the manifest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from boundaries.dataset import open_dataset
from boundaries.findings import Finding, found


@dataclass(frozen=True, slots=True)
class Previous:
    """An earlier dataset: per layer the names and, if it was built with them, sizes by code."""

    version: str
    names: Mapping[str, Mapping[str, str]]
    area_m2: Mapping[str, Mapping[str, float]]


def read_previous(folder: Path) -> Previous:
    """Open a dataset folder to compare with. Raises `DatasetError`."""
    dataset = open_dataset(folder)
    names: dict[str, dict[str, str]] = {layer.name: {} for layer in dataset.index.layers}
    for area in dataset.index.areas:
        names[area.layer][area.code] = area.name
    sizes = {
        layer["name"]: layer["area_m2"]
        for layer in dataset.manifest.get("layers", [])
        if "area_m2" in layer
    }
    return Previous(dataset.version, names, sizes)


def check_previous(
    layer: str, area_m2: Mapping[str, float], previous: Previous, *, change_percent: float
) -> Iterator[Finding]:
    """How a layer, the size of each area by code, differs from an earlier one."""
    before = previous.names.get(layer)
    if before is None:
        yield found(
            "not_compared",
            layer,
            f"{previous.version} has no layer {layer!r}, it has {', '.join(previous.names)}",
        )
        return
    for code in sorted(before.keys() - area_m2.keys()):
        yield found(
            "missing_area",
            layer,
            f"{code} {before[code]} was in {previous.version} and is missing",
            area=code,
        )
    for code in sorted(area_m2.keys() - before.keys()):
        yield found("new_area", layer, f"{code} was not in {previous.version}", area=code)
    sizes = previous.area_m2.get(layer)
    if sizes is None:
        yield found(
            "not_compared",
            layer,
            f"{previous.version} does not say how large its areas are; build it again for that",
        )
        return
    for code in sorted(sizes.keys() & area_m2.keys()):
        percent = 100 * (area_m2[code] / sizes[code] - 1)
        if abs(percent) > change_percent:
            yield found(
                "area_changed",
                layer,
                f"{code} {before[code]} has {area_m2[code] / 1e6:,.2f} km², "
                f"in {previous.version} it had {sizes[code] / 1e6:,.2f} ({percent:+.1f} %)",
                area=code,
                area_m2=abs(area_m2[code] - sizes[code]),
            )
