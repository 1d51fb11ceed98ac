"""What an operator may write for an instant, and what it means."""

from __future__ import annotations

import pytest

from api.london import InstantRefused, parse_instant


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2027-04-01", "2027-03-31T23:00:00+00:00"),
        ("2027-01-01", "2027-01-01T00:00:00+00:00"),
        ("2027-04-01T06:00", "2027-04-01T05:00:00+00:00"),
        ("2027-01-01T06:00:30", "2027-01-01T06:00:30+00:00"),
        # the days that clocks change on, and just beside the change
        ("2027-03-28", "2027-03-28T00:00:00+00:00"),
        ("2027-03-28T00:59:59", "2027-03-28T00:59:59+00:00"),
        ("2027-03-28T02:00", "2027-03-28T01:00:00+00:00"),
        ("2027-10-31", "2027-10-30T23:00:00+00:00"),
        ("2027-10-31T00:59:59", "2027-10-30T23:59:59+00:00"),
        ("2027-10-31T02:00", "2027-10-31T02:00:00+00:00"),
        # with a zone it is what it says
        ("2027-10-31T01:30Z", "2027-10-31T01:30:00+00:00"),
        ("2027-04-01T06:00+02:00", "2027-04-01T04:00:00+00:00"),
    ],
)
def test_days_and_local_times(text: str, utc: str) -> None:
    assert parse_instant(text).isoformat() == utc


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2027-03-28T01:00", "does not exist in the United Kingdom: clocks go forward"),
        ("2027-03-28T01:59:59", "does not exist in the United Kingdom: clocks go forward"),
        ("2027-10-31T01:00", "comes twice .* write 2027-10-31T00:00Z or 2027-10-31T01:00Z"),
        ("2027-10-31T01:59", "comes twice .* write 2027-10-31T00:59Z or 2027-10-31T01:59Z"),
        ("tomorrow", "'tomorrow' is no day and no time; write 2027-04-01 or 2027-04-01T06:00"),
        ("2027-02-30", "is no day and no time"),
        ("2027-04-01T25:00", "is no day and no time"),
        ("0001-01-01T00:00+14:00", "is no day and no time"),
        ("", "is no day and no time"),
    ],
)
def test_what_cannot_be_meant_is_refused(text: str, message: str) -> None:
    with pytest.raises(InstantRefused, match=message):
        parse_instant(text)
