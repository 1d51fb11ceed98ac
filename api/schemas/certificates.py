"""A certificate of notice: what it says, and the keys that certificates are signed with.

Times are text, and to the letter, because they are hashed as they stand.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from api import examples
from api.schemas.wire import Wire

Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Hex64 = Annotated[str, Field(pattern="^[0-9a-f]{128}$")]
Uuid = Annotated[
    str, Field(pattern="^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
]
# In UTC, to the microsecond
At = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]


class _Certified(Wire):
    """Exactly these fields, of exactly these types: one that is added is no part of it."""

    model_config = ConfigDict(extra="forbid", strict=True)


class CertifiedAuthority(_Certified):
    """An authority, by its name when the certificate was issued."""

    id: Uuid
    name: str


class CertifiedPlace(_Certified):
    """WGS 84 degrees."""

    lon: float
    lat: float
    accuracy_m: float | None


class CertifiedReport(_Certified):
    """What was reported. `observed_at` is by the device's clock."""

    id: Uuid
    category: str
    place: CertifiedPlace
    received_at: At
    observed_at: At | None
    description: str
    description_sha256: Hex32
    answers: dict[str, bool | int | float | str]


class CertifiedContent(_Certified):
    """The text of what was reported whose hash the first event holds, with its salt."""

    hashed: str
    sha256: Hex32


class CertifiedDecision(_Certified):
    """Who was held responsible, by which rule and data."""

    authority: CertifiedAuthority | None
    state: str
    rule: str
    reason: str
    dataset: str
    rules: str | None
    as_of: str | None


class CertifiedAttempt(_Certified):
    """One try at handing a message over. `answer_sha256` is of the answer's first 2 KiB."""

    event: int
    authority: CertifiedAuthority | None
    delivery: Uuid
    sequence: Annotated[int, Field(description="1 is the report itself.")]
    n: int
    endpoint: Uuid
    channel: str
    started_at: At
    finished_at: At | None
    outcome: str
    status: int | None
    answer_sha256: Hex32 | None
    reference: str | None
    unsure: bool
    nothing_sent: bool


class CertifiedAcceptance(_Certified):
    """When an authority first took the report, and with what answer."""

    at: At | None
    event: int
    authority: CertifiedAuthority | None
    channel: str
    status: int | None
    answer_sha256: Hex32 | None
    reference: Annotated[str | None, Field(description="The authority's own number for it.")]


class CertifiedEvent(_Certified):
    """An event, the text that was hashed of it, and the hash."""

    n: int
    at: At
    kind: str
    authority: CertifiedAuthority | None
    key: str | None
    detail: dict[str, Any]
    hashed: str
    hash: Hex32


class Signature(_Certified):
    """Over all the rest; the documentation on evidence says how it is verified."""

    algorithm: Literal["Ed25519"]
    public_key: Hex32
    value: Hex64


class Certificate(_Certified):
    """When a report was received, tried and accepted, in a form that can be verified."""

    model_config = ConfigDict(
        extra="forbid", strict=True, json_schema_extra={"examples": [examples.CERTIFICATE]}
    )

    certificate: Literal["georouter certificate 1"]
    proves: str
    issued_at: At
    report: CertifiedReport
    content: Annotated[
        CertifiedContent | None,
        Field(description="Null of a report that came before there was such a thing."),
    ]
    decision: Annotated[CertifiedDecision, Field(description="By which who has it now has it.")]
    decision_on_receipt: CertifiedDecision
    accepted: Annotated[
        list[CertifiedAcceptance], Field(description="By each authority that took it.")
    ]
    attempts: list[CertifiedAttempt]
    under_way: Annotated[
        int, Field(description="Attempts that had begun and not ended when it was issued.")
    ]
    events: Annotated[list[CertifiedEvent], Field(min_length=1)]
    head: Annotated[Hex32, Field(description="The hash of the last event.")]
    signature: Signature


class SigningKey(Wire):
    """A key that certificates are or were signed with."""

    public_key: Annotated[Hex32, Field(description="Ed25519, in hex.")]
    created_at: str
    retired_at: Annotated[str | None, Field(description="It signed nothing after this.")]


class SigningKeys(Wire):
    """The newest first."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [examples.SIGNING_KEYS]})

    items: list[SigningKey]
