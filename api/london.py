"""Days in the United Kingdom, and the instants at which they begin.

Councils end and begin at midnight in Europe/London, which for half of the year is 23:00 UTC of the
day before. Instants are stored and compared in UTC; this is the only place that knows the zone.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

LONDON: Final = ZoneInfo("Europe/London")


def begins(day: date) -> datetime:
    """The instant at which a day begins, in UTC."""
    return datetime.combine(day, time.min, LONDON).astimezone(UTC)


def ends(day: date) -> datetime:
    """The instant at which a day is over, in UTC."""
    return begins(day + timedelta(days=1))


def day_of(unix_s: float) -> date:
    """The day on which an instant, in Unix seconds, falls."""
    return datetime.fromtimestamp(unix_s, LONDON).date()
