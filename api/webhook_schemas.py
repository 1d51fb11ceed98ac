"""What councils receive: models of the webhook messages, and of what may be answered.

They describe what `delivery.channels.webhook` and the registration's challenge write, for the
OpenAPI document and for the JSON Schema in the documents; nothing is made from them. Messages gain
fields and types without a new version; a field that changes its meaning or goes is a new version.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from api import examples
from api.schemas import CandidateOut, Time, Wire
from georouter.model import DecisionState

VERSION = 1
SCHEMA_ID = f"urn:georouter:webhooks:{VERSION}"
DIALECT = "https://json-schema.org/draft/2020-12/schema"

Version = Annotated[
    Literal[1], Field(description="Of these schemas; fields are added without a new one.")
]


class MessageReport(Wire):
    """The report, as the citizen made it."""

    id: UUID
    category: Annotated[str, Field(description="A code of `/v1/categories`, which may grow.")]
    description: str
    answers: Annotated[
        dict[str, bool | float | str],
        Field(description="To the category's questions, by their codes."),
    ]
    lon: Annotated[float, Field(description="WGS 84 longitude, degrees.")]
    lat: Annotated[float, Field(description="WGS 84 latitude, degrees.")]
    accuracy_m: Annotated[
        float | None, Field(description="Radius of the position's uncertainty, as the device said.")
    ]
    observed_at: Annotated[Time | None, Field(description="By the device's clock.")]
    received_at: Time
    spam_suspected: Annotated[
        list[str],
        Field(description="Codes of reasons to think that it is spam; empty as a rule."),
    ]


class MessageAuthority(Wire):
    """The authority that the report is for: the receiver."""

    id: UUID
    name: str


class MessageDecision(Wire):
    """Why the report came here. The first candidate got it."""

    state: DecisionState
    rule: str
    reason: str
    question: Annotated[
        str | None, Field(description="What the reporter was asked and has not answered.")
    ]
    candidates: list[CandidateOut]
    dataset: str


class MessageContact(Wire):
    """The reporter, as far as they gave it for you to have."""

    name: str | None
    email: str | None
    phone: Annotated[str | None, Field(description="E.164, such as +442079460000.")]


class MessagePhoto(Wire):
    """A photo of the report, upright, at most 2048 pixels wide or high."""

    id: UUID
    url: Annotated[
        str,
        Field(description="Opens without a key; with `&size=thumb`, 320 pixels wide or high."),
    ]
    expires_at: Annotated[
        Time, Field(description="Of `url`; `GET /v1/reports/{id}` has a new one.")
    ]
    width: int
    height: int
    content_type: Literal["image/jpeg"]


Photos = Annotated[list[MessagePhoto], Field(description="All that have come by then.")]


class CreatedData(Wire):
    """What `report.created` tells."""

    report: MessageReport
    authority: MessageAuthority
    decision: MessageDecision
    photos: Photos
    contact: Annotated[
        MessageContact | None, Field(description="Null unless the reporter agreed.")
    ] = None


class ReportCreated(Wire):
    """A report for the authority."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MESSAGE_CREATED]})

    type: Literal["report.created"]
    schema_version: Version
    timestamp: Annotated[Time, Field(description="When it happened; the same on every attempt.")]
    sequence: Annotated[
        int, Field(ge=1, description="Of what is said about this report; a higher number wins.")
    ]
    data: CreatedData


class ReportId(Wire):
    """The report, by its id."""

    id: UUID


class UpdatedData(Wire):
    """What `report.updated` tells."""

    report: ReportId
    decision: MessageDecision
    photos: Photos
    reports: Annotated[
        int | None,
        Field(description="How many there are of this by now, if that is the news."),
    ] = None
    still_there: Annotated[
        bool, Field(description="You closed it, and a reporter says that it is still there.")
    ] = False


class ReportUpdated(Wire):
    """A report that you have, by now: why it is yours, its photos, how many have reported it."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MESSAGE_UPDATED]})

    type: Literal["report.updated"]
    schema_version: Version
    timestamp: Time
    sequence: Annotated[int, Field(ge=2)]
    data: UpdatedData


class WithdrawnData(Wire):
    """What `report.withdrawn` tells."""

    report: ReportId
    authority: Annotated[MessageAuthority, Field(description="Who has it now.")]
    reason: str


class ReportWithdrawn(Wire):
    """A report that you have has gone to another authority: it was never yours to mend."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MESSAGE_WITHDRAWN]})

    type: Literal["report.withdrawn"]
    schema_version: Version
    timestamp: Time
    sequence: Annotated[int, Field(ge=2)]
    data: WithdrawnData


class ChallengeData(Wire):
    """What has to be given back."""

    challenge: str


class EndpointChallenge(Wire):
    """Sent on registration: answer 2xx with the same `challenge`, and the address is used."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MESSAGE_CHALLENGE]})

    type: Literal["endpoint.challenge"]
    schema_version: Version
    timestamp: Time
    sequence: Literal[0]
    data: ChallengeData


class EndpointTest(Wire):
    """Sent when somebody asks for it, to see that messages arrive. It is about no report."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.MESSAGE_TEST]})

    type: Literal["endpoint.test"]
    schema_version: Version
    timestamp: Time
    sequence: int = 0
    data: dict[str, Any]


# Every message, told apart by its type
Message = Annotated[
    ReportCreated | ReportUpdated | ReportWithdrawn | EndpointChallenge | EndpointTest,
    Field(discriminator="type"),
]


class MessageAnswer(BaseModel):
    """What may be answered to a report. Other fields, and what is not JSON, are not read."""

    reference: Annotated[
        str | None,
        Field(max_length=100, description="Your number for it; the reporter is shown it."),
    ] = None
    not_ours: Annotated[bool, Field(description="It is somebody else's.")] = False
    responsible: Annotated[
        str | None,
        Field(max_length=100, description="With `not_ours`: the code of whose it is, if known."),
    ] = None


class ChallengeAnswer(BaseModel):
    """What a challenge must be answered with."""

    challenge: str


def json_schema() -> dict[str, Any]:
    """The JSON Schema of every message, as councils get it."""
    schema = TypeAdapter[Any](Message).json_schema(mode="serialization")
    return {"$schema": DIALECT, "$id": SCHEMA_ID, "title": "georouter webhooks", **schema}
