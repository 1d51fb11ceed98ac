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


class WebhookIn(Asked):
    """Reports are posted as signed JSON."""

    model_config = _shown(examples.ENDPOINT_IN)

    channel: Literal["webhook"]
    url: HttpsAddress
    config: NoConfig = NoConfig()


class Open311In(Asked):
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


class MailIn(Asked):
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


class BlackholeIn(Asked):
    """Nothing is sent, and counts as delivered: for rehearsals. Operators only."""

    channel: Literal["blackhole"]
    url: Annotated[str, Field(max_length=200, pattern="^blackhole:[!-~]*$")] = "blackhole:"
    config: NoConfig = NoConfig()


# Where an authority wants its reports sent, by channel.
EndpointIn = Annotated[WebhookIn | Open311In | MailIn | BlackholeIn, Field(discriminator="channel")]


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
                f"Received. {name} has not told us yet where it takes reports; yours is kept and "
                "forwarded as soon as it does."
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


class ReportOut(Receipt):
    """A report's receipt and how far it has come since."""

    model_config = _shown(examples.REPORT_OUT)

    state: Annotated[
        Literal["held", "queued", "forwarded", "not_sent", "undeliverable"],
        Field(description="`not_sent`: a rehearsal, nothing was sent to anybody."),
    ]
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
    config: Annotated[dict[str, Any], Field(description="As registered, without secrets.")] = {}
    state: Literal["pending", "active", "paused", "suspended"]
    created_at: Time


class EndpointCreated(EndpointOut):
    """A new endpoint; a webhook with the secret that signs what is sent to it."""

    model_config = _shown(examples.ENDPOINT_CREATED)

    secret: Annotated[
        str | None,
        Field(
            description="A webhook's Standard Webhooks signing secret. Keep it: it is not shown "
            "again. Other channels have none."
        ),
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
