"""An authority's intake endpoints, by channel."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BeforeValidator, Field, SecretStr, model_validator

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

    model_config = shown(examples.ENDPOINT_IN)

    channel: Literal["webhook"]
    url: HttpsAddress
    config: NoConfig = NoConfig()
    fallback: Fallback = False


class Open311In(Asked):
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
    fallback: Fallback = False


class MailIn(Asked):
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
    fallback: Fallback = False


class BlackholeIn(Asked):
    """Nothing is sent, and counts as delivered: for rehearsals. Operators only."""

    channel: Literal["blackhole"]
    url: Annotated[str, Field(max_length=200, pattern="^blackhole:[!-~]*$")] = "blackhole:"
    config: NoConfig = NoConfig()
    fallback: Fallback = False


# Where an authority wants its reports sent, by channel.
EndpointIn = Annotated[WebhookIn | Open311In | MailIn | BlackholeIn, Field(discriminator="channel")]


class EndpointOut(Wire):
    """An authority's destination. Its secret is shown once, on registration."""

    model_config = shown(examples.ENDPOINT)

    id: UUID
    authority_id: UUID
    channel: str
    url: str
    config: Annotated[dict[str, Any], Field(description="As registered, without secrets.")] = {}
    state: Literal["pending", "active", "paused", "suspended"]
    fallback: bool
    created_at: Time


class EndpointCreated(EndpointOut):
    """A new endpoint; a webhook with the secret that signs what is sent to it."""

    model_config = shown(examples.ENDPOINT_CREATED)

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

    model_config = shown(examples.ENDPOINT_LIST)

    items: list[EndpointOut]
