"""Runs the checks: of a boundary file, of a dataset that was built, and for `build`.

Promises the same findings for a file, whether it is validated by itself or built. It writes
nothing; who asks decides what findings mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from boundaries.canonical import canonical, repairs
from boundaries.checks import Limits, check_layer, check_read, check_repairs
from boundaries.corrections import Corrections, accept, correct
from boundaries.dataset import DatasetError, read_manifest
from boundaries.findings import Finding, Repair, found, from_json, ordered
from boundaries.metres import square_metres
from boundaries.previous import Previous, check_previous
from boundaries.readers import Features, SourceError, SourceNotFoundError, read_features

Progress = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Validation:
    """How to validate: what to compare with, what to correct, and from where on to report."""

    limits: Limits = field(default_factory=Limits)
    corrections: Corrections = field(default_factory=Corrections)
    against: Previous | None = None
    known: frozenset[str] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Admitted:
    """A layer as read, repaired and corrected, and what was found and done on the way."""

    features: Features
    findings: tuple[Finding, ...]
    repairs: tuple[Repair, ...]
    corrections: tuple[dict[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """What was done, as a manifest has it under the layer."""
        told: dict[str, Any] = {"repairs": [dataclasses.asdict(one) for one in self.repairs]}
        return told | ({"corrections": list(self.corrections)} if self.corrections else {})


@dataclass(frozen=True, slots=True)
class Report:
    """What is found in a file or dataset, the gravest first; and what was done to read it."""

    findings: tuple[Finding, ...]
    layers: tuple[dict[str, Any], ...]


def admit(layer: str, features: Features, how: Validation) -> Admitted:
    """Make a layer canonical, saying how, and correct it.

    Empty areas stay, with a finding that stops a build. Raises `SourceError`.
    """
    findings = list(check_read(layer, features))
    snapped, repaired = canonical(features.geometries)
    told = repairs(features.codes, features.geometries, snapped, repaired)
    findings += check_repairs(layer, told, how.limits)
    nothing = dict(zip(features.codes, shapely.is_empty(features.geometries), strict=True))
    corrected, done = correct(layer, replace(features, geometries=snapped), how.corrections)
    for code, geometry in zip(corrected.codes, corrected.geometries, strict=True):
        if geometry.is_empty and nothing.get(code):
            message = f"area {code!r} has no geometry; remove it or complete it"
            findings.append(found("empty_geometry", layer, message, area=code))
        elif geometry.is_empty:
            message = f"area {code!r} is smaller than the grid of 1e-7 degrees; remove it"
            findings.append(found("vanished_area", layer, message, area=code))
    return Admitted(corrected, tuple(findings), tuple(told), tuple(done))


def check(layer: str, features: Features, how: Validation) -> list[Finding]:
    """What is found in a layer of canonical polygons, by itself and against the previous one."""
    findings = list(check_layer(layer, features, how.limits, known=how.known))
    if how.against is not None:
        findings += check_previous(
            layer, areas_m2(features), how.against, change_percent=how.limits.change_percent
        )
    return findings


def areas_m2(features: Features) -> dict[str, float]:
    """The size of each area by code, to a square metre."""
    sizes = np.rint(square_metres(features.geometries)).tolist()
    return dict(zip(features.codes, sizes, strict=True))


def validate_file(
    path: Path,
    layer: str,
    how: Validation,
    *,
    code_field: str | None = None,
    name_field: str | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> Report:
    """Validate a file as a layer.

    A file that cannot be read is a finding. Raises `SourceError` for one that is not there, and for
    a correction that does not apply.
    """
    progress("reading", 0.0)
    try:
        features = read_features(
            path, code_field=code_field, name_field=name_field, keep_empty=True
        )
    except SourceNotFoundError:
        raise
    except SourceError as error:
        return Report((found(error.finding, layer, str(error)),), ())
    progress("repairing", 0.2)
    admitted = admit(layer, features, how)
    del features  # as read they are as large as all the rest
    progress("checking", 0.4)
    findings = [*admitted.findings, *check(layer, admitted.features, how)]
    findings, accepted = accept(findings, how.corrections, [layer])
    described = {"name": layer, "areas": len(admitted.features.codes), **admitted.as_json()}
    if accepted:
        described["accepted"] = accepted
    return Report(tuple(ordered(findings)), (described,))


def validate_dataset(folder: Path, how: Validation) -> Report:
    """The findings that a dataset was built with, and how it differs from another one.

    Raises `DatasetError`; so it does for a dataset that was built before there were findings.
    """
    manifest = read_manifest(folder)
    if "findings" not in manifest:
        raise DatasetError(f"{folder} was built without findings; build the dataset again")
    findings = from_json(manifest["findings"])
    if how.against is not None:
        for layer in manifest["layers"]:
            if "area_m2" in layer:
                findings += check_previous(
                    layer["name"],
                    layer["area_m2"],
                    how.against,
                    change_percent=how.limits.change_percent,
                )
    layers = tuple(_without_sizes(layer) for layer in manifest["layers"])
    return Report(tuple(ordered(findings)), layers)


def _without_sizes(layer: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("name", "areas", "repairs", "corrections", "accepted")
    return {name: layer[name] for name in kept if name in layer}
