"""A citizen's report: as it is sent, its receipt, and what becomes of it.

It is long because the models build on each other, and say what each field is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from sys import float_info
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import phonenumbers
from email_validator import EmailNotValidError, validate_email
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    SkipValidation,
    model_validator,
)

from api import examples
from api.schemas.decisions import DecisionOut
from api.schemas.deliveries import DeliveryState, Outcome
from api.schemas.photos import PhotoOut
from api.schemas.wire import (
    Accuracy,
    Asked,
    CategoryCode,
    Chosen,
    Latitude,
    Longitude,
    Name,
    RoadRef,
    Time,
    UpdateState,
    Wire,
    plain_text,
    rfc3339,
    shown,
    storable,
)
from georouter.questions import LONGEST_TEXT, MOST_ANSWERS

# Of one report
MOST_PHOTOS = 3


def _answer(value: object) -> object:
    # Told here in one sentence; of a union there would be one for each type.
    if isinstance(value, str):
        text = str(plain_text(value))
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"must have at most {LONGEST_TEXT} characters")
        return text
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float) or not abs(value) <= float_info.max:  # nor NaN
        raise ValueError("must be true or false, a finite number or a text")
    return float(value)


QuestionCode = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(storable)]


Answer = Annotated[
    bool | float | Annotated[str, Field(max_length=LONGEST_TEXT)], BeforeValidator(_answer)
]


# The ends of time themselves are infinity to the database.
EARLIEST = datetime.min.replace(microsecond=1, tzinfo=UTC)
LATEST = datetime.max.replace(microsecond=999_998, tzinfo=UTC)


def _by_any_clock(value: datetime) -> datetime:
    """The instant in UTC, or the nearest that can be stored."""
    try:
        at = value.astimezone(UTC)
    except OverflowError:
        at = EARLIEST if value.year == EARLIEST.year else LATEST
    return min(max(at, EARLIEST), LATEST)


def _none_if_blank(value: object) -> object:
    value = plain_text(value)
    return None if value == "" else value


def _email(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return str(validate_email(value, check_deliverability=False).normalized)
    except EmailNotValidError:
        # In our words: theirs quote the address.
        raise ValueError("must be an e-mail address, such as jo@example.org") from None


def _phone(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        number = phonenumbers.parse(value, "GB")
    except phonenumbers.NumberParseException:
        number = None
    # Not whether it is in use: numbers are given out that no list of ranges knows yet.
    if number is None or not phonenumbers.is_possible_number(number):
        raise ValueError(
            "must be a phone number, such as 020 7946 0000, or with the country's code in front"
        )
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


class Contact(Asked):
    """How to reach the reporter. All of it is theirs to give or not."""

    model_config = shown(examples.CONTACT)

    name: Annotated[
        str | None,
        Field(max_length=100),
        AfterValidator(lambda value: None if value is None else storable(value)),
        BeforeValidator(_none_if_blank),
    ] = None
    email: Annotated[
        str | None,
        Field(max_length=254),
        AfterValidator(_email),
        BeforeValidator(_none_if_blank),
    ] = None
    phone: Annotated[
        str | None,
        Field(max_length=40, description="British unless it begins with a country's code."),
        AfterValidator(_phone),
        BeforeValidator(_none_if_blank),
    ] = None
    share_with_council: Annotated[
        bool, Field(strict=True, description="The authority that gets the report may have it.")
    ] = False
    notify: Annotated[
        bool, Field(strict=True, description="They want mail about the report; needs `email`.")
    ] = False

    @model_validator(mode="after")
    def _mail_needs_an_address(self) -> Self:
        if self.notify and self.email is None:
            raise ValueError("notify needs an email")
        return self


def _distinct(photos: list[UUID]) -> list[UUID]:
    if len(set(photos)) < len(photos):
        raise ValueError("must not name a photo twice")
    return photos


class ReportIn(Asked):
    """A citizen's report of one defect at one place."""

    model_config = shown(examples.REPORT_IN)

    lon: Longitude
    lat: Latitude
    category: CategoryCode
    description: Annotated[
        str,
        Field(min_length=1, max_length=4000, description="What is wrong, in the citizen's words."),
        BeforeValidator(plain_text),
    ]
    accuracy_m: Annotated[Accuracy, Field(strict=True)] = None
    road_ref: RoadRef = None
    chosen: Chosen = None
    observed_at: Annotated[
        datetime | None,
        Field(
            description="When it was seen, by the device's clock, however wrong that is: it is "
            "kept as it is, and nothing is decided by it."
        ),
        AfterValidator(lambda value: None if value is None else _by_any_clock(value)),
        BeforeValidator(lambda value: None if value is None else rfc3339(value)),
    ] = None
    answers: Annotated[
        dict[QuestionCode, Answer],
        Field(
            max_length=MOST_ANSWERS,
            description="Answers to the category's questions by their codes, as its "
            "`answers_schema` in `/v1/categories` says.",
        ),
    ] = {}
    contact: Annotated[Contact | None, Field(description="None: anonymous.")] = None
    duplicate_of: Annotated[
        UUID | None,
        Field(
            description="An open report within 250 m, of `/v1/nearby`, that tells of the same. It "
            "is counted with that one; what else this says of the defect is not kept."
        ),
    ] = None

    photos: Annotated[
        list[UUID],
        Field(
            max_length=MOST_PHOTOS,
            description="Uploads of yours that are on no report yet. One whose bytes are still to "
            "come follows by itself.",
        ),
        AfterValidator(_distinct),
    ] = []
    photos_public: Annotated[
        bool, Field(strict=True, description="The citizen agrees that anybody may see the photos.")
    ] = False

    def sha256(self) -> bytes:
        """A digest of what the report says, however the JSON was spelled.

        Fields not given do not count, so that a field added later changes no older digest.
        """
        said = self.model_dump(mode="json", exclude_none=True)
        for name in ("answers", "photos", "photos_public"):
            if not said[name]:
                del said[name]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


# Drafts in one batch
MOST_DRAFTS = 50


class DraftIn(Asked):
    """A report out of a device's queue."""

    idempotency_key: Annotated[
        str,
        Field(
            description="1 to 255 printable ASCII characters, as the header of a report of its own."
        ),
    ]
    report: ReportIn


class BatchIn(Asked):
    """A device's queue of reports. Each is checked and stored by itself."""

    model_config = shown(examples.BATCH_IN)

    items: Annotated[list[SkipValidation[DraftIn]], Field(min_length=1, max_length=MOST_DRAFTS)]


class AnswerIn(Asked):
    """A reporter's answer to the question of a decision: a candidate, or the road that it is on."""

    model_config = shown(examples.ANSWER_IN)

    chosen: Chosen = None
    road_ref: RoadRef = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.chosen is None) == (self.road_ref is None):
            raise ValueError("send chosen, the code of a candidate, or road_ref, not both")
        return self


ClosedReason = Literal["no_further_action", "duplicate", "not_responsible"]


class UpdateIn(Asked):
    """What an authority has to say about a report. The same `update_id` again changes nothing."""

    model_config = shown(examples.UPDATE_IN)

    update_id: Annotated[
        Name,
        Field(min_length=1, max_length=100, description="Yours, new for each update of a report."),
    ]
    state: UpdateState
    reason: Annotated[
        ClosedReason | None, Field(description="Why it is closed; goes with `closed` only.")
    ] = None
    responsible: Annotated[
        str | None,
        Field(
            max_length=64,
            pattern="^[!-~]+$",
            description="With `not_responsible`: code of the authority that is, if you know it.",
        ),
    ] = None
    note: Annotated[
        str | None,
        Field(min_length=1, max_length=2000, description="For the reporter to read."),
        BeforeValidator(plain_text),
    ] = None
    reference: Annotated[Name | None, Field(min_length=1, max_length=100)] = None
    expected_on: Annotated[
        date | None, Field(description="The day by which it should be done.")
    ] = None

    @model_validator(mode="after")
    def _reasons_go_with_closed(self) -> Self:
        if (self.state == "closed") != (self.reason is not None):
            raise ValueError("closed needs a reason, and only closed has one")
        if self.responsible is not None and self.reason != "not_responsible":
            raise ValueError("responsible goes with the reason not_responsible")
        return self


class HideIn(Asked):
    """Why a report is hidden. A word of ours and not a text: it goes into what is never erased."""

    model_config = shown(examples.HIDE_IN)

    reason: Literal["personal_data", "offensive", "spam", "other"]


class AssignIn(Asked):
    """The authority that an operator gives a report to."""

    model_config = shown(examples.ASSIGN_IN)

    authority: Annotated[
        str, Field(min_length=1, max_length=64, pattern="^[!-~]+$", description="Its code.")
    ]


class Links(Wire):
    """Where to go from here."""

    self: Annotated[str, Field(description="For the app that posted the report.")]
    track: Annotated[
        str | None,
        Field(description="For the reporter alone: a secret, which opens without an API key."),
    ] = None

    @classmethod
    def of(cls, report_id: UUID, token: str | None) -> Self:
        """A report's, with the private link of who holds the token."""
        track = f"/v1/track/{token}" if token is not None else None
        return cls(self=f"/v1/reports/{report_id}", track=track)


class Receipt(Wire):
    """What the reporter's app is told once the report is stored."""

    model_config = shown(examples.RECEIPT)

    id: UUID
    received_at: Time
    category: str
    decision: DecisionOut
    forwarding: Annotated[
        Literal["queued", "held", "joined"],
        Field(description="`joined`: counted with `duplicate_of`, which is forwarded already."),
    ]
    message: Annotated[str, Field(description="`forwarding`, in words for the reporter.")]
    reports: Annotated[int, Field(description="How many there are of this, it included.")] = 1
    duplicate_of: Annotated[
        UUID | None, Field(description="The report that this was counted with; also the `id`.")
    ] = None
    status: Annotated[
        UpdateState | None, Field(description="What the authority said last of its work.")
    ] = None
    links: Links

    @classmethod
    def of(
        cls,
        *,
        report_id: UUID,
        received_at: datetime,
        decision: DecisionOut,
        held: bool,
        rehearsal: bool = False,
        token: str | None = None,
    ) -> Self:
        """The receipt of a stored report; the same whenever it is asked for again.

        `token` is the private link's. `rehearsal`: the service sends nothing to anybody, or has
        not sent this one.
        """
        name = decision.authority.name if decision.authority else "the authority"
        message = f"Received. It is on its way to {name}."
        if held:
            message = (
                f"Received. {name} has not told us yet where it takes such reports; yours is kept "
                "and forwarded as soon as it does."
            )
        if rehearsal:
            message = f"Received. This is a rehearsal: nothing is sent to {name}."
        return cls(
            id=report_id,
            received_at=received_at,
            category=decision.category,
            decision=decision,
            forwarding="held" if held else "queued",
            message=message,
            links=Links.of(report_id, token),
        )


class EmergencyNow(Wire):
    """What must be done at once beside having reported, and the number to call."""

    text: str
    phone: str


class Posted(Receipt):
    """The receipt, and what the reporter must be told at once. Only the latter may change."""

    model_config = shown(examples.POSTED)

    emergencies: list[EmergencyNow]


class Problem(Wire):
    """A problem document, RFC 9457."""  # the description of the API has it from `errors`

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    title: str
    status: int
    detail: str


class BatchItem(Wire):
    """The answer to one draft: as it would have been if it had come by itself."""

    status: Annotated[int, Field(description="201: stored. Else see `problem`.")]
    replayed: Annotated[bool, Field(description="The receipt is that of an earlier request.")]
    receipt: Posted | None
    problem: Problem | None


class BatchOut(Wire):
    """The answers to a batch, in the order of its items."""

    model_config = shown(examples.BATCH_OUT)

    items: list[BatchItem]


class ReportDelivery(Wire):
    """How far one delivery of a report has come."""

    id: UUID
    endpoint_id: UUID
    sequence: Annotated[
        int, Field(description="1 for the report itself, then one for each update.")
    ]
    state: DeliveryState
    attempts: int
    last_outcome: Outcome | None
    last_status: int | None
    reference: Annotated[str | None, Field(description="The authority's own number for it.")]
    nothing_sent: Annotated[
        bool, Field(description="It only counts as delivered: a rehearsal sent nothing.")
    ]
    delivered_at: Time | None
    next_attempt_at: Time | None


EventKind = Literal[
    "received",
    "answered",
    "not_ours",
    "rerouted",
    "with_operator",
    "status",
    "attempted",
    "me_too",
    "still_there",
    "photo",
    "hidden",
    "unhidden",
    "spam",
]


OUTCOMES = {
    "delivered": "taken",
    "deferred": "not taken yet",
    "rejected": "refused",
    "gone": "the address is there no more",
    "not_ours": "not theirs, they say",
    "unknown": "not known what came of it",
}


def attempt_in_words(authority: str | None, told: Mapping[str, Any]) -> str:
    """What an event of kind `attempted` tells of, for people to read."""
    what = "Sent to" if told.get("sequence", 1) == 1 else "News sent to"
    came = OUTCOMES.get(told["outcome"], told["outcome"])
    if told["channel"] == "mail" and told["outcome"] == "delivered":
        came = "taken by the mail server"
    if told.get("nothing_sent"):
        what, came = "Meant for", "a rehearsal, nothing was sent"
    status = f" (answer {told['status']})" if told.get("status") else ""
    reference = f", their number {told['reference']}" if told.get("reference") else ""
    return f"{what} {authority}: {came}{status}{reference}"


class EventOut(Wire):
    """Something that became of a report. `authority` is whom it went to, or who says so.

    Of kind `status` the `state` is the authority's; "closed" does not mean "fixed". Of kind
    `attempted`, one try at handing a message over, `at` is when it was noted.
    """

    model_config = shown(examples.EVENT)

    n: int
    at: Time
    kind: EventKind
    authority: Annotated[str | None, Field(description="Its name.")]
    state: UpdateState | None = None
    reason: str | None = None
    note: str | None = None
    reference: str | None = None
    expected_on: date | None = None
    reports: Annotated[
        int | None, Field(description="Of `me_too`: how many there are by then.")
    ] = None
    message: Annotated[str | None, Field(description="Of `attempted`: in words.")] = None
    outcome: Annotated[
        Outcome | Literal["unknown"] | None,
        Field(description="Of `attempted`; `unknown` if who made it died in the middle."),
    ] = None
    status: Annotated[int | None, Field(description="Of `attempted`: the answer's.")] = None
    started_at: Annotated[Time | None, Field(description="Of `attempted`.")] = None
    finished_at: Annotated[Time | None, Field(description="Of `attempted`.")] = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of events."""
        own = {"n", "at", "kind", "authority"}
        names = cls.model_fields.keys() - own
        told = {name: value for name, value in row["detail"].items() if name in names}
        if row["kind"] == "attempted":
            told["message"] = attempt_in_words(row["authority_name"], row["detail"])
        return cls(
            n=row["n"], at=row["at"], kind=row["kind"], authority=row["authority_name"], **told
        )


class ReportOut(Receipt):
    """A report's receipt and how far it has come since.

    `current` is the decision by now, `status` what the authority said last of its work.
    """

    model_config = shown(examples.REPORT_OUT)

    state: Annotated[
        Literal["held", "queued", "forwarded", "not_sent", "undeliverable", "with_operator"],
        Field(description="`not_sent`: a rehearsal, nothing was sent to anybody."),
    ]
    current: DecisionOut
    events: list[EventOut]
    deliveries: list[ReportDelivery]
    answers: Annotated[dict[str, bool | float | str], Field(description="As they were given.")]
    photos: list[PhotoOut]


class TriageItem(Wire):
    """A report that no rule finds a body for; `last` had it last."""

    report_id: UUID
    since: Time
    reason: str
    category: str
    lon: float
    lat: float
    description: str
    last: str


class TriagePage(Wire):
    """The operator's queue, the oldest first."""

    model_config = shown(examples.TRIAGE_PAGE)

    items: list[TriageItem]
    next_cursor: str | None
