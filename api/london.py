"""Days in the United Kingdom, and the instants at which they begin.

Councils end and begin at midnight in Europe/London, which for half of the year is 23:00 UTC of the
day before. Instants are stored and compared in UTC; this is the only place that knows the zone.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

LONDON: Final = ZoneInfo("Europe/London")


class InstantRefused(ValueError):  # noqa: N818 - reads as the sentence it is
    """A day or time that cannot be meant; the message says why and what to write instead."""


def parse_instant(text: str) -> datetime:
    """The instant that is meant by a day (its midnight) or a local time, in UTC.

    Such as 2027-04-01 or 2027-04-01T06:00; a time with a zone or `Z` means itself. Raises
    `InstantRefused` for what is neither, and for times that a clock change skips or repeats.
    """
    try:
        if len(text) == len("2027-04-01"):
            return begins(date.fromisoformat(text))
        local = datetime.fromisoformat(text)
        if local.tzinfo is not None:
            return local.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InstantRefused(
            f"{text!r} is no day and no time; write 2027-04-01 or 2027-04-01T06:00"
        ) from None
    first, second = (local.replace(tzinfo=LONDON, fold=n).astimezone(UTC) for n in (0, 1))
    if first == second:
        return first
    if first.astimezone(LONDON).replace(tzinfo=None) != local:
        raise InstantRefused(f"{text} does not exist in the United Kingdom: clocks go forward then")
    raise InstantRefused(
        f"{text} comes twice in the United Kingdom, where clocks go back then; write "
        f"{first:%Y-%m-%dT%H:%MZ} or {second:%Y-%m-%dT%H:%MZ}"
    )


def begins(day: date) -> datetime:
    """The instant at which a day begins, in UTC."""
    return datetime.combine(day, time.min, LONDON).astimezone(UTC)


def ends(day: date) -> datetime:
    """The instant at which a day is over, in UTC."""
    return begins(day + timedelta(days=1))


def day_of(unix_s: float) -> date:
    """The day on which an instant, in Unix seconds, falls."""
    return datetime.fromtimestamp(unix_s, LONDON).date()
