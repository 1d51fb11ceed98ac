"""What anybody may see of reports: those near a place, and all of them as GeoJSON.

Nothing here says who reported; descriptions are masked. Coordinates are rounded to about a metre.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field

from api import examples
from api.masking import mask
from api.schemas.wire import Asked, CategoryCode, Time, UpdateState, Wire, rfc3339, shown

BRIEF = 140
DECIMALS = 5

When = Annotated[Time | None, BeforeValidator(lambda value: value and rfc3339(value))]


class Near(Asked):
    """Which reports may be the same as one about to be made."""

    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False, examples=[2.12])]
    lat: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False, examples=[54.71])]
    category: CategoryCode
    radius_m: Annotated[float, Field(ge=1, le=5000, allow_inf_nan=False)] = 250.0
    limit: Annotated[int, Field(ge=1, le=50)] = 5


class NearbyReport(Wire):
    """An open report close by, for a citizen to say: that is mine too."""

    id: UUID
    lon: float
    lat: float
    distance_m: Annotated[float, Field(description="From the place asked about, to 0.1 m.")]
    received_at: Time
    age_days: Annotated[int, Field(description="Whole days since it was received.")]
    reports: Annotated[int, Field(description="How many have reported it.")]
    status: Annotated[UpdateState | None, Field(description="What the authority said last.")]
    description: Annotated[
        str, Field(description="Its beginning; addresses, telephone numbers and plates masked.")
    ]

    @classmethod
    def of(cls, row: Mapping[str, Any], *, now: Time) -> Self:
        """From a row of reports near a place."""
        text = mask(row["description"])
        return cls(
            id=row["id"],
            lon=round(row["lon"], DECIMALS),
            lat=round(row["lat"], DECIMALS),
            distance_m=round(row["distance_m"], 1),
            received_at=row["received_at"],
            age_days=max(0, (now - row["received_at"]).days),
            reports=row["reports"],
            status=row["status"],
            description=text if len(text) <= BRIEF else f"{text[: BRIEF - 1].rstrip()}…",
        )


class Nearby(Wire):
    """Open reports of the category, the nearest first."""

    model_config = shown(examples.NEARBY)

    items: list[NearbyReport]


def _box(value: str) -> str:
    parts = value.split(",")
    try:
        west, south, east, north = map(float, parts)
    except ValueError:
        raise ValueError("must be four numbers: west,south,east,north") from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise ValueError(
            "must be west,south,east,north in degrees, longitudes from -180 to 180 and latitudes "
            "from -90 to 90, the south first"
        )
    if west > east:
        raise ValueError("must begin in the west; ask for both sides of the antimeridian apart")
    return value


class ReportFilter(Asked):
    """Which reports. All conditions together; none for all."""

    bbox: Annotated[
        str | None,
        Field(
            max_length=120,
            description="west,south,east,north in degrees.",
            examples=["2.0,54.6,2.3,54.9"],
        ),
        AfterValidator(lambda value: value and _box(value)),
    ] = None
    category: CategoryCode | None = None
    state: Annotated[
        Literal["open", "closed"] | None,
        Field(description="Closed: the authority ended it, and nobody says it is still there."),
    ] = None
    authority: Annotated[
        str | None,
        Field(max_length=64, pattern="^[!-~]+$", description="Code of the one that has it."),
    ] = None
    received_from: Annotated[When, Field(description="From this instant on.")] = None
    received_to: Annotated[When, Field(description="Before this instant.")] = None
    updated_since: Annotated[When, Field(description="With news since this instant.")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[
        str | None,
        Field(max_length=600, description="`next_cursor` of the page before; none for the first."),
    ] = None

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """`bbox` as numbers."""
        if not self.bbox:
            return None
        west, south, east, north = map(float, self.bbox.split(","))
        return west, south, east, north

    @property
    def closed(self) -> bool | None:
        """`state` as a report has it."""
        return None if self.state is None else self.state == "closed"


class Point(Wire):
    """A GeoJSON point: longitude, latitude."""

    type: Literal["Point"] = "Point"
    coordinates: tuple[float, float]


class PublicReport(Wire):
    """What anybody may know of a report."""

    category: str
    authority: Annotated[str, Field(description="Name of the one that has it.")]
    authority_code: str | None
    state: Literal["open", "closed"]
    status: Annotated[UpdateState | None, Field(description="What the authority said last.")]
    description: Annotated[
        str, Field(description="Addresses, telephone numbers and number plates masked.")
    ]
    reports: Annotated[int, Field(description="How many have reported it.")]
    received_at: Time
    updated_at: Time

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the public list."""
        return cls(
            category=row["category"],
            authority=row["authority_name"],
            authority_code=row["authority_code"],
            state="closed" if row["closed"] else "open",
            status=row["status"],
            description=mask(row["description"]),
            reports=row["reports"],
            received_at=row["received_at"],
            updated_at=row["updated_at"],
        )


class Feature(Wire):
    """A report on a map."""

    type: Literal["Feature"] = "Feature"
    id: UUID
    geometry: Point
    properties: PublicReport

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of the public list."""
        place = (round(row["lon"], DECIMALS), round(row["lat"], DECIMALS))
        return cls(id=row["id"], geometry=Point(coordinates=place), properties=PublicReport.of(row))


class ReportCollection(Wire):
    """Reports as GeoJSON (RFC 7946), the newest first."""

    model_config = shown(examples.REPORT_COLLECTION)

    type: Literal["FeatureCollection"] = "FeatureCollection"
    features: list[Feature]
    next_cursor: str | None
