"""`/healthz` and `/readyz`: whether the process is alive, and can do its work.

Alive asks nothing of anybody. Ready asks the database and looks at the dataset in force: a process
that cannot open it goes on with the one before, but is not ready, so that a balancer sends new
requests to those that can.
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response

from api import db, examples, schemas
from api.routes.wiring import Wired, Wiring

router = APIRouter(tags=["health"])

DELIVERY = {"live": "live", "dry_run": "DRY RUN: nothing is sent to anybody"}


@router.get("/healthz", operation_id="getHealth", summary="Is the process alive")
async def get_health() -> schemas.Health:
    """Answer as long as the process runs."""
    return schemas.Health(status="alive")


@router.get(
    "/readyz",
    operation_id="getReadiness",
    summary="Can requests be served",
    response_description="Ready",
    responses={
        503: {
            "model": schemas.Readiness,
            "description": "Not ready",
            "content": {"application/json": {"example": examples.NOT_READY}},
        }
    },
)
async def get_readiness(response: Response, wired: Wired) -> schemas.Readiness:
    """Say whether the database, its schema and the boundary dataset in force are there."""
    database, schema = await _check_database(wired)
    dataset = _check_dataset(wired)
    status: Literal["ready", "not ready"] = "ready"
    if not (database.ok and schema.ok and dataset.ok):
        status = "not ready"
        response.status_code = 503
    checks = {
        "database": database,
        "schema": schema,
        "dataset": dataset,
        "delivery": schemas.Check(ok=True, detail=DELIVERY[wired.settings.delivery_mode]),
    }
    return schemas.Readiness(status=status, checks=checks)


async def _check_database(wired: Wiring) -> tuple[schemas.Check, schemas.Check]:
    reachable = schemas.Check(ok=True, detail="reachable")
    try:
        async with db.acquire(wired.pool) as conn:
            await db.check_schema(conn)
    except db.DatabaseUnavailable:
        unknown = schemas.Check(ok=False, detail="not known without the database")
        return schemas.Check(ok=False, detail="cannot be reached"), unknown
    except (db.SchemaOutdated, db.MigrationRefused) as error:
        return reachable, schemas.Check(ok=False, detail=str(error))
    return reachable, schemas.Check(ok=True, detail="current")


def _check_dataset(wired: Wiring) -> schemas.Check:
    current, fault = wired.live.current, wired.live.fault
    if fault is None and current is not None:
        return schemas.Check(ok=True, detail=current.version)
    still = f"; {current.version} decides meanwhile" if current else ""
    return schemas.Check(ok=False, detail=f"{fault}{still}")
