"""What validation finds: kinds with codes that never change, findings, and repairs. Pure values.

`KINDS` is the one place that says how grave a kind is and what it means; the operations guide has
the same table, held against this one by a test.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Severity(StrEnum):
    """How grave a finding is: an error makes routing wrong, a warning may, a note does not."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding.

    One that `stops` stops a build also without `--strict`: it cannot be repaired, and answers
    would be wrong.
    """

    severity: Severity
    means: str
    stops: bool = False


_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

KINDS: Final = {
    "unreadable_file": Kind(_ERROR, "the file cannot be read, or is no layer of areas", stops=True),
    "unclosed_ring": Kind(
        _ERROR, "a ring does not end where it begins, or has fewer than four points", stops=True
    ),
    "empty_geometry": Kind(_ERROR, "an area has no geometry", stops=True),
    "vanished_area": Kind(_ERROR, "an area is smaller than the grid of 1e-7 degrees", stops=True),
    "swapped_axes": Kind(
        _ERROR, "longitude and latitude are the wrong way round: swapped, it would fit", stops=True
    ),
    "antimeridian": Kind(
        _ERROR, "a polygon is wider than half the globe; cut it at 180 degrees", stops=True
    ),
    "duplicate_polygon": Kind(_ERROR, "two codes have the very same ground"),
    "overlap": Kind(_ERROR, "two areas have ground in common that is no sliver"),
    "gap": Kind(_ERROR, "ground between areas, closed in by them, is in none, and is no sliver"),
    "doubtful_repair": Kind(
        _ERROR, "an invalid polygon can be read in two ways; the repair chose one"
    ),
    "invalid_ring": Kind(_WARNING, "a polygon is not valid, such as one that crosses itself"),
    "duplicate_code": Kind(_WARNING, "several rows have one code; they are put together"),
    "overlap_sliver": Kind(_WARNING, "two areas overlap in slivers: small or narrow ground"),
    "gap_sliver": Kind(_WARNING, "slivers between areas are in none of them"),
    "hole": Kind(_WARNING, "ground closed in by one area is in none: a lake, or an area missing"),
    "tiny_area": Kind(_WARNING, "an area is too small to be an authority's"),
    "far_from_rest": Kind(_WARNING, "a part of an area lies far from all the others"),
    "coarse_resolution": Kind(
        _WARNING, "borders have too few vertices to route by, as layers for overview maps have"
    ),
    "unknown_code": Kind(_WARNING, "codes that are no GSS codes of areas, or not in the table"),
    "missing_area": Kind(_WARNING, "an area of the previous dataset is not in this one"),
    "area_changed": Kind(_WARNING, "an area is larger or smaller than before, beyond belief"),
    "new_area": Kind(_NOTE, "an area was not in the previous dataset"),
    "not_compared": Kind(_NOTE, "the previous dataset does not have what this is compared with"),
    "hairline": Kind(
        _NOTE, "overlaps or gaps narrower than a step of the grid, such as moving vertices leaves"
    ),
    "narrow_slit": Kind(
        _NOTE, "a slit between areas, open to the sea: the head of a creek, or borders that differ"
    ),
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a validation. The place, in degrees, is where to look first.

    `area` is a code, `others` those of the areas that it concerns besides. What a correction
    accepts has its reason in `accepted`.
    """

    code: str
    severity: Severity
    layer: str
    area: str | None
    message: str
    lon: float | None = None
    lat: float | None = None
    area_m2: float | None = None
    others: tuple[str, ...] = ()
    accepted: str | None = None


def found(
    code: str,
    layer: str,
    message: str,
    *,
    area: str | None = None,
    at: Sequence[float] | None = None,
    area_m2: float | None = None,
    others: Iterable[str] = (),
) -> Finding:
    """A finding of a kind; `at` is longitude and latitude."""
    lon, lat = (round(float(at[0]), 7), round(float(at[1]), 7)) if at is not None else (None, None)
    m2 = None if area_m2 is None else round(float(area_m2), 4)
    return Finding(
        code, KINDS[code].severity, layer, area, message, lon, lat, m2, tuple(others), None
    )


@dataclass(frozen=True, slots=True)
class Repair:
    """An invalid polygon that was made valid: why, where, and how much ground that decided on.

    `moved_m2` is the ground that another reading of the same lines (inside is what an odd number
    of them encloses) would give or take.
    """

    area: str
    reason: str
    lon: float | None
    lat: float | None
    moved_m2: float


class FindingsError(Exception):
    """Findings that a dataset must not be built with."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        first = next(iter(findings))
        more = f"; and {len(findings) - 1} more" if len(findings) > 1 else ""
        remedy = "correct the files, or list corrections for --corrections"
        super().__init__(f"layer {first.layer!r}: {first.message}{more}; {remedy}")
        self.findings = tuple(findings)


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The gravest first, then by layer, kind and area; what is accepted last."""
    grave = {severity: rank for rank, severity in enumerate(Severity)}
    kinds = {code: rank for rank, code in enumerate(KINDS)}
    return sorted(
        findings,
        key=lambda one: (
            one.accepted is not None,
            grave[one.severity],
            one.layer,
            kinds[one.code],
            one.area or "",
            -(one.area_m2 or 0.0),
            one.message,
        ),
    )


def standing(findings: Iterable[Finding], *, strict: bool) -> list[Finding]:
    """The errors, and with `strict` the warnings, that are not accepted."""
    grave = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    return [one for one in findings if one.severity in grave and one.accepted is None]


def stop(findings: Sequence[Finding], *, strict: bool) -> None:
    """Raise `FindingsError` for what stops a build."""
    stopping = [one for one in standing(findings, strict=strict) if strict or KINDS[one.code].stops]
    if stopping:
        raise FindingsError(ordered(stopping))


def summary(findings: Iterable[Finding]) -> str:
    """How many there are of each severity, in words."""
    counts = Counter("accepted" if one.accepted else one.severity.value for one in findings)
    words = [
        f"{counts[name]} {name}" + ("s" if counts[name] > 1 and name != "accepted" else "")
        for name in (*Severity, "accepted")
        if counts[name]
    ]
    return ", ".join(words) or "no findings"


def as_json(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """Findings as a manifest has them: what does not apply is left out."""
    return [
        {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(one).items()
            if value not in ((), None) or name in {"area", "lon", "lat", "area_m2"}
        }
        for one in findings
    ]


def from_json(described: Iterable[dict[str, Any]]) -> list[Finding]:
    """The findings of a manifest."""
    return [
        Finding(
            **{
                **one,
                "severity": Severity(one["severity"]),
                "others": tuple(one.get("others", ())),
            }
        )
        for one in described
    ]
