"""What an authority is sent: deliveries and their attempts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field

from api import examples
from api.schemas.wire import Page, Time, Wire, shown

DeliveryState = Literal["pending", "leased", "delivered", "dead", "cancelled"]
Outcome = Literal["delivered", "deferred", "rejected", "gone", "not_ours"]


class DeliveryFilter(Page):
    """Which deliveries."""

    state: DeliveryState | None = None


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

    model_config = shown(examples.DELIVERY_PAGE)

    items: list[DeliveryOut]
    next_cursor: str | None
