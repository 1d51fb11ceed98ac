"""The models of the messages against the bytes that the channel makes of real reports."""

from __future__ import annotations

import json
from typing import Any

import asyncpg
import pytest
from pydantic import TypeAdapter, ValidationError

from api import db
from api.delivery import outbox
from api.delivery.channels.webhook import payload
from api.webhook_schemas import Message, ReportCreated
from tests.support.app import IN_WEST, ON_BORDER, WEST, Api

MESSAGE: TypeAdapter[Any] = TypeAdapter(Message)


async def sent(pool: asyncpg.Pool) -> list[bytes]:
    """What a worker would send now."""
    async with db.acquire(pool) as conn:
        claimed = await outbox.claim(conn, worker=1, limit=50, lease_s=60.0, per_endpoint=50)
    return [payload(one) for one in claimed]


@pytest.mark.parametrize(
    "fields",
    [
        IN_WEST,
        {**ON_BORDER, "accuracy_m": 30.0},
        {**IN_WEST, "answers": {"depth_cm": 6.5, "cycle_route": True}},
        {**IN_WEST, "observed_at": "2026-11-02T08:15:00.5+01:00", "accuracy_m": 4000.0},
        {**IN_WEST, "description": 'Ünïcode, "quotes", \t tabs and \n lines', "category": "litter"},
    ],
)
async def test_bytes_and_model_say_the_same(
    api: Api, pool: asyncpg.Pool, fields: dict[str, Any]
) -> None:
    assert (await api.register(WEST)).status_code == 201
    # Active by its challenge, where there is one; that is another test's.
    await pool.execute("UPDATE endpoint SET state = 'active'")
    assert (await api.post_report(**fields)).status_code == 201
    [message] = await sent(pool)
    told = MESSAGE.validate_json(message)
    assert isinstance(told, ReportCreated)
    assert normal(told.model_dump(mode="json")) == normal(json.loads(message))


def normal(value: Any) -> Any:
    """Times without the zeros at their end, which mean nothing."""
    if isinstance(value, dict):
        return {name: normal(one) for name, one in value.items()}
    if isinstance(value, list):
        return [normal(one) for one in value]
    if isinstance(value, str) and value.endswith("Z") and "." in value:
        return value.removesuffix("Z").rstrip("0").rstrip(".") + "Z"
    return value


async def test_the_model_notices(api: Api, pool: asyncpg.Pool) -> None:
    await api.register(WEST)
    await pool.execute("UPDATE endpoint SET state = 'active'")
    await api.post_report()
    [message] = await sent(pool)
    good = json.loads(message)
    for broken in (
        {**good, "type": "report.made"},
        {**good, "sequence": 0},
        {**good, "schema_version": 2},
        {name: value for name, value in good.items() if name != "schema_version"},
        {**good, "data": {**good["data"], "report": {}}},
    ):
        with pytest.raises(ValidationError):
            MESSAGE.validate_python(broken)
