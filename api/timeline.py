"""What became of a report, in plain sentences for its reporter. Pure.

It promises to claim no more than is known: "closed" is not "fixed", mailed is not read, and what a
rehearsal did not send was not sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from api.schemas import EventOut, ReportOut, TrackEvent

LONDON: Final = ZoneInfo("Europe/London")
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
MOVES: Final = frozenset({"not_ours", "rerouted", "with_operator"})
"""The events after which another has the report, or nobody."""

_NOT_FIXED: Final = "That does not mean that it is fixed."
_STATES: Final = {
    "acknowledged": "{who} has taken note of it.",
    "investigating": "{who} is looking into it.",
    "planned": "{who} has planned the work.",
    "in_progress": "{who} is at work on it.",
    "fixed": "{who} says that it is fixed.",
    "closed": "{who} has closed it.",
    "reopened": "{who} has opened it again.",
}
_CLOSED: Final = {
    "no_further_action": "{who} has closed it and will do nothing more.",
    "duplicate": "{who} has closed it, because another report told of the same.",
}
_SENTENCES: Final = {
    "received": "We received the report. {who} is responsible.",
    "answered": "The reporter said more about where it is.",
    "not_ours": "{who} says that it is not theirs.",
    "with_operator": "No body could be found that is responsible; our staff will find out.",
    "still_there": "It was said to be still there. The report is open again.",
    "photo": "A photo was added.",
    "hidden": "It is not shown to the public any more.",
    "unhidden": "It is shown to the public again.",
}


def day(value: date) -> str:
    """A day, for people to read."""
    return f"{value.day} {MONTHS[value.month - 1]} {value.year}"


def moment(at: datetime) -> str:
    """An instant, by the clocks of the United Kingdom."""
    local = at.astimezone(LONDON)
    return f"{day(local)}, {local:%H:%M}"


def event_of(row: Mapping[str, Any]) -> TrackEvent | None:
    """A row of events as its reporter is told of it; None if it is nothing to them."""
    event = EventOut.of(row)
    sentence = _sentence(event, row["detail"])
    if sentence is None:
        return None
    return TrackEvent(
        n=event.n,
        at=event.at,
        kind=event.kind,
        sentence=sentence,
        authority=event.authority,
        state=event.state,
        reason=event.reason,
        note=event.note,
        reference=event.reference,
        expected_on=event.expected_on,
    )


def _sentence(event: EventOut, detail: Mapping[str, Any]) -> str | None:
    who = event.authority or "The authority"
    match event.kind:
        case "attempted":
            return _attempt(who, detail)
        case "status":
            return _status(who, event)
        case "rerouted":
            because = f": {event.reason}" if event.reason else ""
            return f"It went to {who}{because}."
        case "me_too":
            count = detail.get("reports")
            return (
                f"There are {count} reports of it now." if count else "Somebody else reported it."
            )
    said = _SENTENCES.get(event.kind)
    return said.format(who=who) if said else None


def _status(who: str, event: EventOut) -> str:
    state = event.state or "acknowledged"
    words = _CLOSED.get(event.reason or "", _STATES[state])
    said = [words.format(who=who)]
    if state == "closed":
        said.append(_NOT_FIXED)
    if event.expected_on:
        said.append(f"It should be done by {day(event.expected_on)}.")
    if event.reference:
        said.append(f"Their number for it is {event.reference}.")
    return " ".join(said)


def _attempt(who: str, told: Mapping[str, Any]) -> str | None:
    """Of the report itself; what else they are sent about it is between them and us."""
    if told.get("sequence", 1) != 1:
        return None
    if told.get("nothing_sent"):
        return f"A rehearsal: nothing was sent to {who}."
    if told["outcome"] in {"rejected", "gone"}:
        back = "The mail came back from" if told["channel"] == "mail" else "It was refused by"
        return f"{back} {who}."
    if told["outcome"] != "delivered":
        return None
    number = f" Their number for it is {told['reference']}." if told.get("reference") else ""
    if told["channel"] == "mail":
        return f"It was mailed to {who}. Whether it was read, we do not know."
    return f"The system of {who} has taken it.{number}"


def headline(report: ReportOut, *, dry_run: bool) -> str:
    """Where a report is by now, in one or two sentences."""
    who = report.current.authority.name if report.current.authority else "the authority"
    if report.status is not None and report.state not in {"with_operator", "not_sent"}:
        return _work(report, who)
    if dry_run and report.state != "forwarded":
        return f"A rehearsal: nothing is sent to {who}."
    waiting = report.events[-1].kind == "not_ours"
    words = _FINDING if waiting else _WHERE[report.state]
    return words.format(who=who, since=moment(_since(report)))


_FINDING: Final = "We are finding out who is responsible, since {since}."
_WHERE: Final = {
    "with_operator": _SENTENCES["with_operator"],
    "not_sent": "A rehearsal: nothing was sent to {who}.",
    "forwarded": "{who} has it, and has not said yet what will be done.",
    "held": "{who} has not told us yet where it takes such reports. This one waits since {since}, "
    "and is forwarded as soon as it does.",
    "queued": "Waiting for the system of {who} since {since}.",
    "undeliverable": "It could not be handed to {who}. Our staff have to look into it.",
}


def _work(report: ReportOut, who: str) -> str:
    """What was said last of the work on it."""
    last = next(one for one in reversed(report.events) if one.kind in {"status", "still_there"})
    if last.kind == "still_there":
        return f"Open again: it was said to be still there, after {who} had closed it."
    return _status(last.authority or who, last)


def _since(report: ReportOut) -> datetime:
    """When who has it now got it, or nobody has it any more."""
    moves = [event.at for event in report.events if event.kind in MOVES]
    return moves[-1] if moves else report.received_at
