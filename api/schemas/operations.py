"""How the service does, and who did what to it: notices, audit, health and readiness."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field

from api import examples
from api.schemas.wire import Time, Wire, shown


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

    model_config = shown(examples.NOTICE_PAGE)

    items: list[NoticeOut]
    next_cursor: str | None


class AuditOut(Wire):
    """Something that somebody did. The key is null of the command line and the service itself."""

    model_config = shown(examples.AUDIT)

    id: int
    at: Time
    action: Annotated[str, Field(examples=["endpoint.paused"])]
    authority_id: UUID | None
    target: Annotated[
        UUID | None, Field(description="The endpoint, delivery, report or key that it was done to.")
    ]
    detail: dict[str, Any]
    api_key_id: UUID | None
    key_label: str | None
    key_role: Literal["app", "council", "operator"] | None


class AuditPage(Wire):
    """Entries, the newest first."""

    model_config = shown(examples.AUDIT_PAGE)

    items: list[AuditOut]
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
    """Whether requests can be served, by the dataset that should decide."""

    model_config = shown(examples.READINESS)

    status: Literal["ready", "not ready"]
    checks: dict[str, Check]
