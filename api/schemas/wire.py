"""What all of the wire has in common: the base models, and the kinds of fields that recur.

Unknown fields are refused, numbers are numbers and finite, times carry their zone and leave as UTC
with a `Z`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+\-]\d\d:\d\d)", re.ASCII
)

# Control characters other than newline and tab, and halves of surrogate pairs, which JSON can spell
# and UTF-8 and PostgreSQL cannot. By an expression: of a long description it is the cheap way.
NOT_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def rfc3339(value: object) -> object:
    """Refuse what is no RFC 3339 time with its zone."""
    # pydantic alone would also take seconds since 1970, and dates without a time
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 time with its zone, such as 2026-11-02T08:15:00Z")
    return value


def to_utc(value: datetime) -> datetime:
    """The same instant, in UTC."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999") from None


def plain_text(value: object) -> object:
    """Text without control characters and without blanks around it."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").strip()
    if NOT_TEXT.search(text):
        raise ValueError("must not contain control characters other than newline and tab")
    return text


def storable(value: str) -> str:
    """Refuse what cannot be printed, and so perhaps not stored."""
    if "\x00" in value or not value.isprintable():
        raise ValueError("must be printable")
    return value


Longitude = Annotated[
    float,
    Field(
        strict=True, ge=-180, le=180, allow_inf_nan=False, description="WGS 84 longitude, degrees."
    ),
]


Latitude = Annotated[
    float,
    Field(strict=True, ge=-90, le=90, allow_inf_nan=False, description="WGS 84 latitude, degrees."),
]


Name = Annotated[str, AfterValidator(storable)]


CategoryCode = Annotated[str, Field(min_length=1, max_length=64, examples=["pothole"])]


Time = Annotated[datetime, AfterValidator(to_utc)]


Accuracy = Annotated[
    float | None,
    Field(
        ge=0,
        le=10_000,
        allow_inf_nan=False,
        description="Radius of the position's uncertainty in metres, as the device states it; 10 "
        "is assumed.",
    ),
]


RoadRef = Annotated[
    str | None,
    Field(
        max_length=32,
        pattern="^[!-~ ]+$",
        description='Number of the road that it is on, such as "A12", if the citizen says so.',
    ),
]


Chosen = Annotated[
    str | None,
    Field(
        max_length=64,
        pattern="^[!-~]+$",
        description="Code of the candidate that the citizen named when asked.",
    ),
]


UpdateState = Literal[
    "acknowledged", "investigating", "planned", "in_progress", "fixed", "closed", "reopened"
]


def shown(example: dict[str, Any]) -> ConfigDict:
    """A model's configuration that shows this example in the documentation."""
    return ConfigDict(json_schema_extra={"examples": [example]})


class Wire(BaseModel):
    """What all models here have in common. Answers may gain fields later."""

    model_config = ConfigDict(frozen=True)


class Asked(Wire):
    """Requests: a field that we do not know is refused, for it may be a misspelt one that we do."""

    model_config = ConfigDict(extra="forbid")


class Page(Asked):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[
        str | None,
        Field(max_length=600, description="`next_cursor` of the page before; none for the first."),
    ] = None
