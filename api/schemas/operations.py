"""How the service does: notices, health and readiness."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import ConfigDict

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

    model_config = shown(examples.READINESS)

    status: Literal["ready", "degraded", "not ready"]
    checks: dict[str, Check]
