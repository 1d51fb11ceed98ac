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
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from api import examples
from georouter.model import DecisionState

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

    def sha256(self) -> bytes:
        """A digest of what the report says, however the JSON was spelled.

        Fields not given do not count, so that a field added later changes no older digest.
        """
        said = self.model_dump(mode="json", exclude_none=True)
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).digest()


class Place(Asked):
    """A point and a category to route, without reporting anything."""

    lon: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False, examples=[2.12])]
    lat: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False, examples=[54.71])]
    category: CategoryCode
    accuracy_m: Accuracy = None
    road_ref: RoadRef = None
    chosen: Chosen = None


class EndpointIn(Asked):
    """Where an authority wants its reports sent."""

    model_config = _shown(examples.ENDPOINT_IN)

    channel: Literal["webhook"]
    url: Annotated[
        str,
        Field(
            max_length=2048,
            pattern=r"^https?://[!-~]+$",
            description="An address on the public internet, https.",
        ),
    ]
    fallback: Annotated[
        bool,
        Field(description="Gets nothing but the reports that another endpoint could not be given."),
    ] = False


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
Outcome = Literal["delivered", "deferred", "rejected", "gone"]


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
    layer: str
    reason: str
    distance_m: float = 0.0
    road: Annotated[
        str | None, Field(description="The special road that it would be responsible for.")
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
        cls, *, report_id: UUID, received_at: datetime, decision: DecisionOut, held: bool
    ) -> Self:
        """The receipt of a stored report; the same whenever it is asked for again."""
        name = decision.authority.name if decision.authority else "the authority"
        message = f"Received. It is on its way to {name}."
        if held:
            message = (
                f"Received. {name} has not told us yet where it takes reports; yours is kept and "
                "forwarded as soon as it does."
            )
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
    delivered_at: Time | None
    next_attempt_at: Time | None


class ReportOut(Receipt):
    """A report's receipt and how far it has come since."""

    model_config = _shown(examples.REPORT_OUT)

    state: Literal["held", "queued", "forwarded", "undeliverable"]
    deliveries: list[ReportDelivery]


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


class EndpointOut(Wire):
    """An authority's destination. Its secret is shown once, on registration."""

    model_config = _shown(examples.ENDPOINT)

    id: UUID
    authority_id: UUID
    channel: str
    url: str
    state: Literal["pending", "active", "paused", "suspended"]
    fallback: bool
    created_at: Time


class EndpointCreated(EndpointOut):
    """A new endpoint with the secret that signs what is sent to it."""

    model_config = _shown(examples.ENDPOINT_CREATED)

    secret: Annotated[
        str, Field(description="Standard Webhooks signing secret. Keep it: it is not shown again.")
    ]
    released: Annotated[
        int, Field(description="Held reports on their way now; of very many, the rest follow.")
    ]


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
