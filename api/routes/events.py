"""`/v1/reports/{id}/events` and `.../still-there`: what an app asks after it has sent a report."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Header, Query, Response

from api import db, errors, reopening, schemas
from api.auth import Caller, Role, require_role
from api.routes import event_stream
from api.routes.event_stream import LAST_EVENT_ID, EventStream
from api.routes.reports import look_up
from api.routes.wiring import Calling, IfNoneMatch, Wired, names
from api.store import events

router = APIRouter(prefix="/v1/reports", tags=["reports"])

STREAM: Final[dict[str, Any]] = {
    event_stream.MEDIA_TYPE: {
        "schema": {"type": "string"},
        "example": 'retry: 3000\n\nid: 2\ndata: {"n": 2, "kind": "status"}\n\n:\n\n',
    }
}
CHANGED: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "content": STREAM,
        "headers": {
            "ETag": {"description": "For `If-None-Match`.", "schema": {"type": "string"}},
        },
    },
    304: {"description": "Nothing is new"},
}
Accept = Annotated[
    str, Header(description="`text/event-stream` for a stream that lasts; JSON otherwise.")
]
LastEventId = Annotated[str | None, Header(alias="Last-Event-ID", **LAST_EVENT_ID)]


@router.get(
    "/{report_id}/events",
    operation_id="listEvents",
    summary="What became of a report since",
    response_model=schemas.Events,
    responses={
        **CHANGED,
        **errors.documented(
            errors.NotFound, errors.VALIDATION_FAILED, errors.TooManyStreams, *errors.KEYED
        ),
    },
)
async def list_events(
    report_id: UUID,
    asked: Annotated[schemas.Since, Query()],
    wired: Wired,
    caller: Calling,
    accept: Accept = "",
    if_none_match: IfNoneMatch = None,
    last_event_id: LastEventId = None,
) -> Response:
    """List the events after `since`, or stream them as they come (`Accept: text/event-stream`).

    A stream sends each event with its number as `id`, a comment every 15 seconds, and ends after
    ten minutes; browsers come back by themselves, with `Last-Event-ID`. For those who may read the
    report.
    """
    async with db.acquire(wired.pool) as conn:
        last = await _last(conn, report_id, caller)
        headers = {"ETag": f'"{last}"', "Cache-Control": "private, no-cache", "Vary": "Accept"}
        if event_stream.wanted(accept):
            since = event_stream.beginning(asked.since, last_event_id)
            stream = wired.streams.open(report_id, since)
            return EventStream(wired.streams, stream, schemas.EventOut.of, {"Vary": "Accept"})
        if names(if_none_match, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        rows = await events.list_events(conn, report_id, since=asked.since)
    # By the number that was looked at first: an event that came since is told of the next time.
    found = [schemas.EventOut.of(row) for row in rows if row["n"] <= last]
    body = schemas.Events(items=found, last=last).model_dump_json()
    return Response(body, media_type="application/json", headers=headers)


async def _last(conn: asyncpg.Connection, report_id: UUID, caller: Caller) -> int:
    row = await events.find_last(conn, report_id)
    if row is None or not caller.sees(row):
        raise errors.NotFound("there is no such report, or it is not yours to see")
    last: int = row["last"]
    return last


@router.post(
    "/{report_id}/still-there",
    operation_id="sayStillThere",
    summary="Say that it is still there",
    responses=errors.documented(
        errors.RoleForbidden,
        errors.NotFound,
        errors.NotClosed,
        errors.VALIDATION_FAILED,
        *errors.KEYED,
    ),
)
async def say_still_there(report_id: UUID, wired: Wired, caller: Calling) -> schemas.ReportOut:
    """Say for the reporter that what was closed, or called fixed, is still there.

    The report is open again, and the council that closed it is told. Once for each closing: the
    same again changes nothing. For the app that posted the report.
    """
    require_role(caller, Role.APP)
    async with db.acquire(wired.pool) as conn:
        async with conn.transaction():
            row = await events.find_last(conn, report_id)
            if row is None or row["api_key_id"] != caller.key_id:
                raise errors.NotFound("there is no such report, or another app posted it")
            await reopening.say_still_there(conn, report_id, by=reopening.REPORTER)
        shown = await look_up(conn, report_id, wired, sees=caller.sees)
    wired.notifier.poke()
    return shown
