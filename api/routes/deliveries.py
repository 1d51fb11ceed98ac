"""`/v1/authorities/{id}/deliveries`: what an authority was sent, and sending it again.

With the health of an endpoint, which is what its deliveries make of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import TypeAdapter

from api import db, errors, schemas
from api.auth import require_management
from api.delivery import outbox
from api.routes import paging
from api.routes.wiring import Calling, Wired, json_only
from api.store import audit, deliveries

router = APIRouter(prefix="/v1/authorities/{authority_id}", tags=["deliveries"])

PLACE = TypeAdapter(tuple[schemas.Time, UUID])


@router.get(
    "/deliveries",
    operation_id="listDeliveries",
    summary="What an authority was sent, with every attempt",
    responses=errors.documented(errors.RoleForbidden, errors.VALIDATION_FAILED, *errors.KEYED),
)
async def list_deliveries(
    authority_id: UUID,
    asked: Annotated[schemas.DeliveryFilter, Query()],
    wired: Wired,
    caller: Calling,
) -> schemas.DeliveryPage:
    """List an authority's deliveries, the newest first, those of deleted endpoints included."""
    require_management(caller, authority_id)
    after = paging.decode(asked.cursor, PLACE)
    async with db.acquire(wired.pool) as conn:
        rows = await deliveries.list_deliveries(
            conn,
            authority_id=authority_id,
            state=asked.state,
            endpoint_id=asked.endpoint_id,
            report_id=asked.report_id,
            after=after,
            limit=asked.limit + 1,
        )
    page, cursor = paging.cut(rows, limit=asked.limit, key=("created_at", "id"), shape=PLACE)
    items = [schemas.DeliveryOut.of(row) for row in page]
    return schemas.DeliveryPage(items=items, next_cursor=cursor)


@router.post(
    "/deliveries/{delivery_id}/redeliver",
    operation_id="redeliver",
    summary="Send a delivery again",
    status_code=202,
    responses=errors.documented(
        errors.RoleForbidden,
        errors.NotFound,
        errors.NotRedeliverable,
        errors.VALIDATION_FAILED,
        *errors.KEYED,
    ),
)
async def redeliver(
    authority_id: UUID, delivery_id: UUID, wired: Wired, caller: Calling
) -> schemas.DeliveryOut:
    """Send what was delivered, dead or cancelled once more, at once, under the same `webhook-id`.

    It is tried as often and as long as a new one. Where it was in doubt whether an earlier attempt
    had arrived, this says that it has not.
    """
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn, conn.transaction():
        locked = await deliveries.lock(conn, authority_id=authority_id, delivery_ids=[delivery_id])
        if not locked:
            raise errors.NotFound("the authority was never owed such a delivery")
        if hindrance := _hindrance(locked[0]):
            raise errors.NotRedeliverable(hindrance)
        await deliveries.restart(conn, [delivery_id], patience_s=outbox.PATIENCE_S)
        await audit.record(
            conn,
            "delivery.redelivered",
            api_key_id=caller.key_id,
            authority_id=authority_id,
            target=delivery_id,
            detail={"was": locked[0]["state"]},
        )
        [row] = await deliveries.list_deliveries(
            conn, authority_id=authority_id, delivery_id=delivery_id, limit=1
        )
    wired.notifier.poke()
    return schemas.DeliveryOut.of(row)


@router.post(
    "/deliveries/redeliver",
    operation_id="redeliverMany",
    summary="Send again what ended within a span of time",
    status_code=202,
    dependencies=[Depends(json_only)],
    responses=errors.documented(
        errors.MALFORMED_JSON,
        errors.RoleForbidden,
        errors.MediaTypeUnsupported,
        errors.VALIDATION_FAILED,
        *errors.KEYED,
    ),
)
async def redeliver_many(
    authority_id: UUID, body: schemas.RedeliverIn, wired: Wired, caller: Calling
) -> schemas.Redelivered:
    """Send again what was given up, delivered or cancelled between two times, each as alone.

    At most 10,000 in one request, the oldest first; those that cannot be sent again are left out.
    """
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn, conn.transaction():
        found = await deliveries.find_ended(
            conn,
            authority_id=authority_id,
            endpoint_id=body.endpoint_id,
            states=body.states,
            since=body.since,
            until=body.until,
        )
        locked = await deliveries.lock(conn, authority_id=authority_id, delivery_ids=found)
        # Between the two, another request may have been quicker, and a worker too: what has come to
        # another end since then was not asked for.
        chosen = [
            row["id"]
            for row in locked
            if _hindrance(row) is None and row["settled_at"] == found[row["id"]]
        ]
        await deliveries.restart(conn, chosen, patience_s=outbox.PATIENCE_S)
        if chosen:
            await audit.record(
                conn,
                "deliveries.redelivered",
                api_key_id=caller.key_id,
                authority_id=authority_id,
                target=body.endpoint_id,
                detail={
                    **body.model_dump(mode="json", by_alias=True, exclude={"endpoint_id"}),
                    "count": len(chosen),
                },
            )
    wired.notifier.poke()
    return schemas.Redelivered(count=len(chosen), more=len(found) == deliveries.BATCH)


def _hindrance(row: Mapping[str, Any]) -> str | None:
    """Why a delivery cannot be sent again, if it cannot."""
    if row["endpoint_deleted"]:
        return "its endpoint is deleted; what it never got is held, or went to your other endpoints"
    if row["elsewhere"]:
        return "its report is not with this authority any more"
    if row["state"] in {"pending", "leased"}:
        return "it is on its way already"
    return None


@router.get(
    "/endpoints/{endpoint_id}/health",
    operation_id="getEndpointHealth",
    summary="How an endpoint does",
    responses=errors.documented(
        errors.RoleForbidden, errors.NotFound, errors.VALIDATION_FAILED, *errors.KEYED
    ),
)
async def get_endpoint_health(
    authority_id: UUID, endpoint_id: UUID, wired: Wired, caller: Calling
) -> schemas.EndpointHealth:
    """Show what waits for an endpoint, how it took what it was sent in the last day, and since."""
    require_management(caller, authority_id)
    async with db.acquire(wired.pool) as conn:
        row = await deliveries.read_health(conn, authority_id=authority_id, endpoint_id=endpoint_id)
    if row is None:
        raise errors.NotFound("the authority has no such endpoint")
    return schemas.EndpointHealth.model_validate(dict(row))
