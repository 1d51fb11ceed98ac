"""The wire: what requests and answers look like, with an example of each.

Unknown fields are refused, numbers are numbers and finite, times carry their zone and leave as UTC
with a `Z`. These models say nothing of storage, and check only what needs no database.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, date, datetime
from sys import float_info
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    model_validator,
)

from api import examples
from api.addresses import ADDRESS
from georouter.model import AnswerType, Category, DecisionState, Question
from georouter.questions import LONGEST_TEXT, MOST_ANSWERS, answers_schema

RFC3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+\-]\d\d:\d\d)", re.ASCII
)


def _rfc3339(value: object) -> object:
    # pydantic alone would also take seconds since 1970, and dates without a time
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 time with its zone, such as 2026-11-02T08:15:00Z")
    return value


def _to_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time between the years 1 and 9999") from None


def _plain_text(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").strip()
    for character in text:
        kind = unicodedata.category(character)
        # Cs: half of a surrogate pair, which JSON can spell and UTF-8 and PostgreSQL cannot.
        if kind == "Cs" or (kind == "Cc" and character not in "\n\t"):
            raise ValueError("must not contain control characters other than newline and tab")
    return text


def _answer(value: object) -> object:
    # Told here in one sentence; of a union there would be one for each type.
    if isinstance(value, str):
        text = str(_plain_text(value))
        if len(text) > LONGEST_TEXT:
            raise ValueError(f"must have at most {LONGEST_TEXT} characters")
        return text
    if isinstance(value, bool):
        return value
    if not isinstance(value, int | float) or not abs(value) <= float_info.max:  # nor NaN
        raise ValueError("must be true or false, a finite number or a text")
    return float(value)


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


def _storable(value: str) -> str:
    if "\x00" in value or not value.isprintable():
        raise ValueError("must be printable")
    return value


Name = Annotated[str, AfterValidator(_storable)]
CategoryCode = Annotated[str, Field(min_length=1, max_length=64, examples=["pothole"])]
Time = Annotated[datetime, AfterValidator(_to_utc)]


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [example]})


class Wire(BaseModel):
    """What all models here have in common. Answers may gain fields later."""

    model_config = ConfigDict(frozen=True)


class Asked(Wire):
    """Requests: a field that we do not know is refused, for it may be a misspelt one that we do."""

    model_config = ConfigDict(extra="forbid")


# --- requests ---------------------------------------------------------------------------------


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

QuestionCode = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_storable)]
Answer = Annotated[
    bool | float | Annotated[str, Field(max_length=LONGEST_TEXT)], BeforeValidator(_answer)
]


class ReportIn(Asked):
    """A citizen's report of one defect at one place."""

    model_config = _shown(examples.REPORT_IN)

    lon: Longitude
    lat: Latitude
    category: CategoryCode
    description: Annotated[
        str,
        Field(min_length=1, max_length=4000, description="What is wrong, in the citizen's words."),
        BeforeValidator(_plain_text),
    ]
    accuracy_m: Annotated[Accuracy, Field(strict=True)] = None
    road_ref: RoadRef = None
    chosen: Chosen = None
    observed_at: Annotated[
        datetime | None,
        Field(description="When it was seen, by the device's clock."),
        AfterValidator(lambda value: None if value is None else _to_utc(value)),
        BeforeValidator(lambda value: None if value is None else _rfc3339(value)),
    ] = None
    answers: Annotated[
        dict[QuestionCode, Answer],
        Field(
            max_length=MOST_ANSWERS,
            description="Answers to the category's questions by their codes, as its "
            "`answers_schema` in `/v1/categories` says.",
        ),
    ] = {}

    def sha256(self) -> bytes:
        """A digest of what the report says, however the JSON was spelled.

        Fields not given do not count, so that a field added later changes no older digest.
        """
        said = self.model_dump(mode="json", exclude_none=True)
        if not self.answers:
            del said["answers"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


class Place(Asked):
    """A point and a category to route, without reporting anything."""

    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False, examples=[2.12])]
    lat: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False, examples=[54.71])]
    category: CategoryCode
    accuracy_m: Accuracy = None
    road_ref: RoadRef = None
    chosen: Chosen = None
    as_of: Annotated[
        date | None,
        Field(
            description="Route as on this day in the United Kingdom, e.g. 2027-04-01; today by "
            "default."
        ),
    ] = None


class AnswerIn(Asked):
    """A reporter's answer to the question of a decision: a candidate, or the road that it is on."""

    model_config = _shown(examples.ANSWER_IN)

    chosen: Chosen = None
    road_ref: RoadRef = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.chosen is None) == (self.road_ref is None):
            raise ValueError("send chosen, the code of a candidate, or road_ref, not both")
        return self


UpdateState = Literal[
    "acknowledged", "investigating", "planned", "in_progress", "fixed", "closed", "reopened"
]
ClosedReason = Literal["no_further_action", "duplicate", "not_responsible"]


class UpdateIn(Asked):
    """What an authority has to say about a report. The same `update_id` again changes nothing."""

    model_config = _shown(examples.UPDATE_IN)

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
        BeforeValidator(_plain_text),
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


class AssignIn(Asked):
    """The authority that an operator gives a report to."""

    model_config = _shown(examples.ASSIGN_IN)

    authority: Annotated[
        str, Field(min_length=1, max_length=64, pattern="^[!-~]+$", description="Its code.")
    ]


ServiceCode = Annotated[str, Field(min_length=1, max_length=100, pattern="^[!-~]+$")]
AttributeValue = Annotated[str, Field(max_length=1000), BeforeValidator(_plain_text)]
HttpsAddress = Annotated[
    str,
    Field(
        max_length=2048,
        pattern=r"^https?://[!-~]+$",
        description="An address on the public internet, https.",
    ),
]


Fallback = Annotated[
    bool,
    Field(description="Gets nothing but the reports that another endpoint could not be given."),
]


MessageType = Literal["report.created", "report.updated"]


def _has_reports(value: list[str] | None) -> list[str] | None:
    if value is not None and "report.created" not in value:
        raise ValueError("must have report.created; pause or delete the endpoint to get nothing")
    return value


Events = Annotated[
    Annotated[list[MessageType], Field(min_length=1, max_length=20)] | None,
    Field(description="The types of messages wanted; null for all, new ones included."),
    AfterValidator(_has_reports),
]
Categories = Annotated[
    Annotated[list[CategoryCode], Field(min_length=1, max_length=200)] | None,
    Field(description="The categories wanted, by their codes; null for all, new ones included."),
]


class Wishes(Asked):
    """What an endpoint wants to be sent."""

    fallback: Fallback = False
    events: Events = None
    categories: Categories = None


class NoConfig(Asked):
    """A channel that needs to know nothing but the address."""


class Open311Config(Asked):
    """How an authority's GeoReport v2 server wants to be spoken to."""

    jurisdiction_id: Annotated[str, Field(max_length=200, pattern="^[!-~]+$")] | None = None
    services: Annotated[
        dict[CategoryCode, ServiceCode],
        Field(
            max_length=200, description="The authority's service code for each of our categories."
        ),
    ] = {}
    default_service: Annotated[
        ServiceCode | None,
        Field(description="For categories that are not among `services`; without it, refused."),
    ] = None
    attributes: Annotated[
        dict[ServiceCode, AttributeValue],
        Field(max_length=50, description="Sent with each report as `attribute[...]`."),
    ] = {}
    email: Annotated[
        str | None,
        Field(
            max_length=254,
            pattern=f"^{ADDRESS}$",
            description="Sent as the reporter's, where the server insists on one; reporters' own "
            "are not passed on.",
        ),
    ] = None
    format: Literal["json", "xml"] = "json"
    updates: Annotated[
        bool,
        Field(
            description="The server has FixMyStreet's `servicerequestupdates`; ask there what "
            "becomes of reports, instead of request by request."
        ),
    ] = False

    @model_validator(mode="after")
    def _some_service(self) -> Self:
        if not self.services and self.default_service is None:
            raise ValueError("needs services or a default_service")
        return self


class Open311ConfigIn(Open311Config):
    """The same with the key, which is stored sealed and never shown."""

    api_key: Annotated[SecretStr, Field(min_length=1, max_length=1000)]


class Open311ConfigChange(Open311Config):
    """The same in the place of the one before; without a key, that one's stays."""

    api_key: Annotated[SecretStr | None, Field(min_length=1, max_length=1000)] = None


class WebhookIn(Wishes):
    """Reports are posted as signed JSON."""

    model_config = _shown(examples.ENDPOINT_IN)

    channel: Literal["webhook"]
    url: HttpsAddress
    config: NoConfig = NoConfig()


class Open311In(Wishes):
    """Reports are opened as service requests in a GeoReport v2 server."""

    model_config = _shown(examples.OPEN311_ENDPOINT_IN)

    channel: Literal["open311"]
    url: Annotated[
        str,
        Field(
            max_length=2048,
            pattern=r"^https?://[!\"$->@-~]+$",
            description="What stands before `/requests.json`; an address on the public internet, "
            "https, without a query.",
        ),
    ]
    config: Open311ConfigIn


class MailIn(Wishes):
    """Reports are mailed."""

    model_config = _shown(examples.MAIL_ENDPOINT_IN)

    channel: Literal["mail"]
    url: Annotated[
        str,
        Field(
            max_length=261,
            pattern=f"^mailto:{ADDRESS}$",
            description="`mailto:` and one address.",
        ),
    ]
    config: NoConfig = NoConfig()


class BlackholeIn(Wishes):
    """Nothing is sent, and counts as delivered: for rehearsals. Operators only."""

    channel: Literal["blackhole"]
    url: Annotated[str, Field(max_length=200, pattern="^blackhole:[!-~]*$")] = "blackhole:"
    config: NoConfig = NoConfig()


# Where an authority wants its reports sent, by channel.
EndpointIn = Annotated[WebhookIn | Open311In | MailIn | BlackholeIn, Field(discriminator="channel")]


class EndpointChange(Wishes):
    """What is to be another; what is left out stays. It counts for what is owed from now on."""

    model_config = _shown(examples.ENDPOINT_CHANGE)

    config: Annotated[
        Open311ConfigChange | None, Field(description="Of an open311 endpoint only; the whole.")
    ] = None


class VerifyIn(Asked):
    """The code that was mailed to the endpoint."""

    model_config = _shown(examples.VERIFY_IN)

    code: Annotated[
        str,
        Field(min_length=1, max_length=100, pattern="^[!-~]+$"),
        BeforeValidator(lambda value: value.strip().upper() if isinstance(value, str) else value),
    ]


class RotateIn(Asked):
    """How long the old secret signs beside the new one."""

    model_config = _shown(examples.ROTATE_IN)

    old_secret_for_hours: Annotated[int, Field(strict=True, ge=0, le=168)] = 24


class Page(Asked):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=200)] = 50
    cursor: Annotated[
        str | None,
        Field(max_length=600, description="`next_cursor` of the page before; none for the first."),
    ] = None


class AuthorityFilter(Page):
    """Which authorities."""

    code: Annotated[
        str | None,
        Field(
            max_length=64,
            pattern="^[!-~]+$",
            description="Only the one with this code.",
            examples=["D06000001"],
        ),
    ] = None


DeliveryState = Literal["pending", "leased", "delivered", "dead", "cancelled"]
Outcome = Literal["delivered", "deferred", "rejected", "gone", "not_ours"]


class DeliveryFilter(Page):
    """Which deliveries."""

    state: DeliveryState | None = None


# --- answers ----------------------------------------------------------------------------------


class AuthorityRef(Wire):
    """An authority in brief."""

    id: UUID
    code: str
    name: str


class CandidateOut(Wire):
    """An authority that may be responsible, and why."""

    code: str
    name: str
    layer: Annotated[
        str | None, Field(description="The boundary layer, or null of an agreement's own ground.")
    ]
    reason: str
    distance_m: float = 0.0
    road: Annotated[
        str | None, Field(description="The special road that it would be responsible for.")
    ] = None
    agreement: Annotated[
        str | None, Field(description="The agreement by which it answers in another's place.")
    ] = None
    succeeds: Annotated[
        str | None, Field(description="Code of the authority that it has taken over from.")
    ] = None


class DecisionOut(Wire):
    """Who is responsible, by which rule, in which dataset version. `authority` is null outside.

    Where there is a `question`, the app shows it with the candidates' names, and sends the code of
    the one chosen as `chosen`. Unanswered, the first candidate is taken.
    """

    model_config = _shown(examples.DECISION)

    state: DecisionState
    rule: str
    reason: str
    category: str
    tier: str
    dataset: str
    rules: Annotated[str | None, Field(description="Version of the rules that decided.")] = None
    as_of: Annotated[
        date | None, Field(description="The day whose authorities and agreements count.")
    ] = None
    authority: AuthorityRef | None
    candidates: list[CandidateOut]
    question: str | None = None


class Links(Wire):
    """Where to go from here."""

    self: str


class Receipt(Wire):
    """What the reporter's app is told once the report is stored."""

    model_config = _shown(examples.RECEIPT)

    id: UUID
    received_at: Time
    category: str
    decision: DecisionOut
    forwarding: Literal["queued", "held"]
    message: Annotated[str, Field(description="`forwarding`, in words for the reporter.")]
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
    ) -> Self:
        """The receipt of a stored report; the same whenever it is asked for again.

        `rehearsal`: the service sends nothing to anybody, or has not sent this one.
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
            links=Links(self=f"/v1/reports/{report_id}"),
        )


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


EventKind = Literal["received", "answered", "not_ours", "rerouted", "with_operator", "status"]


class EventOut(Wire):
    """Something that became of a report. `authority` is whom it went to, or who says so.

    Of kind `status` the `state` is the authority's; "closed" does not mean "fixed".
    """

    model_config = _shown(examples.EVENT)

    n: int
    at: Time
    kind: EventKind
    authority: Annotated[str | None, Field(description="Its name.")]
    state: UpdateState | None = None
    reason: str | None = None
    note: str | None = None
    reference: str | None = None
    expected_on: date | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of events."""
        told = {name: value for name, value in row["detail"].items() if name in cls.model_fields}
        return cls(
            n=row["n"], at=row["at"], kind=row["kind"], authority=row["authority_name"], **told
        )


class ReportOut(Receipt):
    """A report's receipt and how far it has come since.

    `current` is the decision by now, `status` what the authority said last of its work.
    """

    model_config = _shown(examples.REPORT_OUT)

    state: Annotated[
        Literal["held", "queued", "forwarded", "not_sent", "undeliverable", "with_operator"],
        Field(description="`not_sent`: a rehearsal, nothing was sent to anybody."),
    ]
    current: DecisionOut
    status: UpdateState | None
    events: list[EventOut]
    deliveries: list[ReportDelivery]
    answers: Annotated[dict[str, bool | float | str], Field(description="As they were given.")]


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

    model_config = _shown(examples.TRIAGE_PAGE)

    items: list[TriageItem]
    next_cursor: str | None


class ChoiceOut(Wire):
    """An answer to choose: what to send, and what to show."""

    value: str
    label: str


class QuestionOut(Wire):
    """Something to ask about a defect. What its type has no use for is null, or empty."""

    code: str
    ask: str
    type: AnswerType
    required: bool
    unit: str | None
    least: Annotated[float | None, Field(description="Of a number, inclusive.")]
    most: Annotated[float | None, Field(description="Of a number, inclusive.")]
    choices: list[ChoiceOut]

    @classmethod
    def of(cls, question: Question) -> Self:
        """As the rules have it."""
        least, most = question.bounds or (None, None)
        return cls(
            code=question.code,
            ask=question.ask,
            type=question.type,
            required=question.required,
            unit=question.unit or None,
            least=least,
            most=most,
            choices=[ChoiceOut(value=code, label=text) for code, text in question.choices.items()],
        )


class CategoryOut(Wire):
    """Something that can be reported, in words for a citizen."""

    code: str
    name: str
    description: str
    tier: Annotated[str, Field(description="Who answers for it: a group of categories.")]
    questions: list[QuestionOut]
    answers_schema: Annotated[
        dict[str, Any],
        Field(description="JSON Schema (2020-12) of a report's `answers`, to make a form of."),
    ]

    @classmethod
    def of(cls, category: Category) -> Self:
        """As the rules have it."""
        return cls(
            code=category.code,
            name=category.name,
            description=category.description,
            tier=category.tier.name,
            questions=[QuestionOut.of(question) for question in category.questions],
            answers_schema=answers_schema(category),
        )


class CategoryList(Wire):
    """What can be reported, as the rules of this version have it."""

    model_config = _shown(examples.CATEGORY_LIST)

    version: str
    items: list[CategoryOut]


class Code(Wire):
    """An external label of an authority."""

    scheme: str
    code: str


class AuthorityOut(Wire):
    """A public body that reports are routed to."""

    id: UUID
    name: str
    codes: list[Code]
    has_active_endpoint: bool


class AuthorityDetail(AuthorityOut):
    """One authority. `held` counts its waiting reports; only it and operators are told."""

    model_config = _shown(examples.AUTHORITY_DETAIL)

    held: int | None = None


class AuthorityPage(Wire):
    """Authorities by name."""

    model_config = _shown(examples.AUTHORITY_PAGE)

    items: list[AuthorityOut]
    next_cursor: str | None


class ProbeOut(Wire):
    """What a challenge or a test has come to; while it waits, its last try."""

    state: Literal["waiting", "passed", "failed"]
    at: Time
    status: Annotated[int | None, Field(description="That the endpoint answered last.")]
    error: str | None


class EndpointOut(Wire):
    """An authority's destination. Its secret is shown once, on registration or rotation.

    It is pending until it passes its challenge, which `verification` tells of; a paused one is owed
    its reports, which wait; a suspended one has said that it is gone.
    """

    model_config = _shown(examples.ENDPOINT)

    id: UUID
    authority_id: UUID
    channel: str
    url: str
    config: Annotated[dict[str, Any], Field(description="As registered, without secrets.")] = {}
    state: Literal["pending", "active", "paused", "suspended"]
    fallback: bool
    events: Annotated[list[str] | None, Field(description="Types of messages; null for all.")]
    categories: Annotated[list[str] | None, Field(description="Their codes; null for all.")]
    verification: Annotated[
        ProbeOut | None, Field(description="Null of one that needs, or needed, no challenge.")
    ]
    last_test: ProbeOut | None
    old_secret_until: Annotated[
        Time | None, Field(description="Until then messages are signed with the old secret too.")
    ]
    created_at: Time


Secret = Annotated[
    str | None,
    Field(
        description="A webhook's Standard Webhooks signing secret. Keep it: it is not shown "
        "again. Other channels have none."
    ),
]


class EndpointCreated(EndpointOut):
    """A new endpoint; a webhook with the secret that signs what is sent to it."""

    model_config = _shown(examples.ENDPOINT_CREATED)

    secret: Secret
    released: Annotated[
        int,
        Field(description="Held reports on their way now; none before the challenge is passed."),
    ]


class EndpointRotated(EndpointOut):
    """An endpoint with its new secret."""

    model_config = _shown(examples.ENDPOINT_ROTATED)

    secret: Secret


class EndpointList(Wire):
    """An authority's endpoints, the oldest first."""

    model_config = _shown(examples.ENDPOINT_LIST)

    items: list[EndpointOut]


class AttemptOut(Wire):
    """One try. `outcome` is null while it runs, or when the sender died in the middle."""

    n: int
    started_at: Time
    finished_at: Time | None
    outcome: Outcome | None
    status: int | None
    answer: Annotated[str | None, Field(description="The first 2 KiB of what the endpoint said.")]
    error: str | None


class DeliveryOut(Wire):
    """One message owed to one endpoint. Its id is the `webhook-id` of every attempt."""

    id: UUID
    report_id: UUID
    endpoint_id: UUID
    sequence: Annotated[
        int, Field(description="1 for the report itself, then one for each update.")
    ]
    state: DeliveryState
    created_at: Time
    settled_at: Time | None
    next_attempt_at: Time | None
    reference: str | None
    attempts: list[AttemptOut]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """From a row of deliveries; `due_at` is the next attempt only of one that waits for it."""
        facts = dict(row)
        due_at = facts.pop("due_at")
        return cls(next_attempt_at=due_at if facts["state"] == "pending" else None, **facts)


class DeliveryPage(Wire):
    """Deliveries, the newest first."""

    model_config = _shown(examples.DELIVERY_PAGE)

    items: list[DeliveryOut]
    next_cursor: str | None


class NoticeOut(Wire):
    """Something that its owner or the operator should know."""

    id: UUID
    at: Time
    authority_id: UUID
    endpoint_id: UUID | None
    delivery_id: UUID | None
    kind: Literal["endpoint_suspended", "delivery_dead"]
    detail: str


class NoticePage(Wire):
    """Notices, the newest first."""

    model_config = _shown(examples.NOTICE_PAGE)

    items: list[NoticeOut]
    next_cursor: str | None


class Health(Wire):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})

    status: Literal["alive"]


class Check(Wire):
    """One thing the service needs; `detail` says what is wrong, or what is in force."""

    ok: bool
    detail: str


class Readiness(Wire):
    """Whether requests can be served. `degraded`: they can, and something needs attention."""

    model_config = _shown(examples.READINESS)

    status: Literal["ready", "degraded", "not ready"]
    checks: dict[str, Check]
