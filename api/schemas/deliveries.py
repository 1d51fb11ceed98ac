"""What an authority is sent: deliveries, their attempts, and sending them again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from api import examples
from api.schemas.wire import Asked, Page, Time, Wire, rfc3339, shown, to_utc

DeliveryState = Literal["pending", "leased", "delivered", "dead", "cancelled"]
Outcome = Literal["delivered", "deferred", "rejected", "gone", "not_ours"]


class DeliveryFilter(Page):
    """Which deliveries."""

    state: Annotated[
        DeliveryState | None, Field(description="`dead` are those that were given up.")
    ] = None
    endpoint_id: UUID | None = None
    report_id: UUID | None = None


Instant = Annotated[datetime, AfterValidator(to_utc), BeforeValidator(rfc3339)]


class RedeliverIn(Asked):
    """Which deliveries to send again: what came to its end from `from` on, and before `to`."""

    model_config = shown(examples.REDELIVER_IN)

    since: Annotated[Instant, Field(alias="from")]
    until: Annotated[Instant, Field(alias="to")]
    states: Annotated[
        list[Literal["delivered", "dead", "cancelled"]],
        Field(min_length=1, max_length=3, description="How they ended."),
    ] = ["dead"]
    endpoint_id: Annotated[
        UUID | None, Field(description="Only those of one endpoint; of all by default.")
    ] = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.since >= self.until:
            raise ValueError("from must be before to")
        return self


class Redelivered(Wire):
    """How many are on their way again."""

    model_config = shown(examples.REDELIVERED)

    count: int
    more: Annotated[
        bool, Field(description="There may be more than one request takes: send it again.")
    ]


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

    model_config = shown(examples.DELIVERY)

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
    redelivered_at: Annotated[
        Time | None, Field(description="When it was last said to be sent again.")
    ]
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


class EndpointHealth(Wire):
    """How an endpoint does. The last day is the 24 hours before the request."""

    model_config = shown(examples.ENDPOINT_HEALTH)

    waiting: Annotated[int, Field(description="Deliveries owed, those in flight included.")]
    oldest_waiting_at: Time | None
    delivered_24h: int
    failed_attempts_24h: int
    success_rate_24h: Annotated[
        float | None,
        Field(description="Deliveries among them and the failed attempts, 0 to 1; null of none."),
    ]
    dead: Annotated[int, Field(description="Deliveries given up, whenever that was.")]
    breaker: Annotated[
        Literal["closed", "open"],
        Field(description="`open` after failures in a row: one attempt a minute until it answers."),
    ]
    open_until: Annotated[Time | None, Field(description="Nothing is sent before.")]
    last_delivered_at: Time | None
