"""The private link: a report's timeline as its reporter is shown it, and what is news of it."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from api import examples
from api.schemas.reports import EventKind, EventOut
from api.schemas.wire import Asked, Time, UpdateState, Wire, shown


class TrackEvent(Wire):
    """Something that became of the report; `sentence` says it in plain words."""

    model_config = shown(examples.TRACK_EVENT)

    n: int
    at: Time
    kind: EventKind
    sentence: str
    authority: Annotated[str | None, Field(description="Whom it went to, or who says so.")]
    state: UpdateState | None
    reason: str | None
    note: Annotated[str | None, Field(description="What the authority has to say, in its words.")]
    reference: str | None
    expected_on: date | None


class TrackAuthority(Wire):
    """Who has the report."""

    id: UUID
    name: str


class TrackLinks(Wire):
    """Where to go from here."""

    self: str
    events: str
    still_there: str
    unsubscribe: str


MailState = Literal["not_wanted", "unconfirmed", "on", "unsubscribed", "stopped", "unavailable"]


class Track(Wire):
    """How a report is getting on. "closed" does not mean "fixed"."""

    model_config = shown(examples.TRACK)

    report_id: UUID
    received_at: Time
    category: str
    description: Annotated[str, Field(description="Without addresses and telephone numbers.")]
    headline: Annotated[str, Field(description="Where it is by now, in plain words.")]
    state: Literal["held", "queued", "forwarded", "not_sent", "undeliverable", "with_operator"]
    status: Annotated[
        UpdateState | None,
        Field(description="What the authority said last; `reopened` once it is still there."),
    ]
    authority: TrackAuthority | None
    why: Annotated[str, Field(description="Why it is theirs.")]
    reference: Annotated[str | None, Field(description="Their number for it.")]
    expected_on: date | None
    reports: Annotated[int, Field(description="How many have reported it.")]
    dry_run: Annotated[bool, Field(description="A rehearsal: nothing is sent to anybody.")]
    can_say_still_there: bool
    mail: Annotated[
        MailState,
        Field(
            description="`unavailable`: wanted, but this service sends none; `stopped`: refused."
        ),
    ]
    events: list[TrackEvent]
    links: TrackLinks


class Since(Asked):
    """What is known already."""

    since: Annotated[
        int, Field(ge=0, le=2**31 - 1, description="The number of the last event that you have.")
    ] = 0


class Events(Wire):
    """Events after `since`; ask again with `last`."""

    model_config = shown(examples.EVENTS)

    items: list[EventOut]
    last: int


class TrackEvents(Wire):
    """Events after `since`; ask again with `last`. Numbers that are left out are nothing to you."""

    model_config = shown(examples.TRACK_EVENTS)

    items: list[TrackEvent]
    last: int
