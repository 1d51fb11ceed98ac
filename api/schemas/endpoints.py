"""An authority's intake endpoints, by channel."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from api import examples
from api.addresses import ADDRESS
from api.schemas.wire import Asked, CategoryCode, Time, Wire, plain_text, shown

ServiceCode = Annotated[str, Field(min_length=1, max_length=100, pattern="^[!-~]+$")]


AttributeValue = Annotated[str, Field(max_length=1000), BeforeValidator(plain_text)]


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


MessageType = Literal["report.created", "report.updated", "report.withdrawn"]


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

    model_config = shown(examples.ENDPOINT_IN)

    channel: Literal["webhook"]
    url: HttpsAddress
    config: NoConfig = NoConfig()


class Open311In(Wishes):
    """Reports are opened as service requests in a GeoReport v2 server."""

    model_config = shown(examples.OPEN311_ENDPOINT_IN)

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

    model_config = shown(examples.MAIL_ENDPOINT_IN)

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

    model_config = shown(examples.ENDPOINT_CHANGE)

    config: Annotated[
        Open311ConfigChange | None, Field(description="Of an open311 endpoint only; the whole.")
    ] = None


class VerifyIn(Asked):
    """The code that was mailed to the endpoint."""

    model_config = shown(examples.VERIFY_IN)

    code: Annotated[
        str,
        Field(min_length=1, max_length=100, pattern="^[!-~]+$"),
        BeforeValidator(lambda value: value.strip().upper() if isinstance(value, str) else value),
    ]


class RotateIn(Asked):
    """How long the old secret signs beside the new one."""

    model_config = shown(examples.ROTATE_IN)

    old_secret_for_hours: Annotated[int, Field(strict=True, ge=0, le=168)] = 24


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

    model_config = shown(examples.ENDPOINT)

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

    model_config = shown(examples.ENDPOINT_CREATED)

    secret: Secret
    released: Annotated[
        int,
        Field(description="Held reports on their way now; none before the challenge is passed."),
    ]


class EndpointRotated(EndpointOut):
    """An endpoint with its new secret."""

    model_config = shown(examples.ENDPOINT_ROTATED)

    secret: Secret


class EndpointList(Wire):
    """An authority's endpoints, the oldest first."""

    model_config = shown(examples.ENDPOINT_LIST)

    items: list[EndpointOut]
