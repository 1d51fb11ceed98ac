"""Opens a report again that an authority closed, because the defect is still there.

It promises that each who follows a report is heard once for each closing, and that whoever closed
it is told in the same transaction.
"""

from __future__ import annotations

from uuid import UUID

import asyncpg

from api import errors
from api.delivery.channels.webhook import DECISION_TOLD
from api.delivery.outbox import owe_event
from api.store import authorities, events, reroutes
from api.timeline import MOVES

REPORTER = "reporter"


async def say_still_there(conn: asyncpg.Connection, report_id: UUID, *, by: str) -> bool:
    """Note that the defect is still there; whether that was news. Call it in a transaction.

    `by` is who says so: `REPORTER`, or the id of another who follows it. Raises `NotFound`, and
    `NotClosed` unless the authority that has it has ended it, or did before and `by` said so then.
    """
    report = await reroutes.lock_report(conn, report_id)
    if report is None:
        raise errors.NotFound("there is no such report")
    happened = await events.list_events(conn, report_id)
    speakers = await authorities.heirs(conn, report["authority_id"])
    moved = max((row["n"] for row in happened if row["kind"] in MOVES), default=0)
    said = [
        row
        for row in happened
        if row["kind"] == "status" and row["n"] > moved and row["authority_id"] in speakers
    ]
    closings = [row for row in said if row["detail"]["state"] in {"fixed", "closed"}]
    key = f"still_there:{closings[-1]['n']}:{by}" if closings else ""
    if any(row["key"] == key for row in happened if row["kind"] == "still_there"):
        return False
    if not closings or closings[-1] is not said[-1]:
        raise errors.NotClosed(
            "the authority has not closed the report, so it is open: wait for what they say; if "
            "it has become dangerous, report it again"
        )
    await events.add_event(
        conn, report_id, kind="still_there", authority_id=report["authority_id"], key=key
    )
    decision = await conn.fetchval("SELECT decision FROM report WHERE id = $1", report_id)
    data = {
        "report": {"id": str(report_id)},
        "decision": {name: decision.get(name) for name in DECISION_TOLD},
        "reports": 1 + sum(row["kind"] == "me_too" for row in happened),
        "still_there": True,
    }
    message = {"type": "report.updated", "data": data}
    await owe_event(conn, report_id, message, authority_id=report["authority_id"])
    return True
