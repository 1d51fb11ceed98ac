"""`/v1/track/{token}`: a report by its private link, for its reporter; and `/v1/mail/{token}`.

The token is the only secret, found by its hash; no key is asked for. A token that is none gets the
same 404 as any other.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Final

import asyncpg
from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api import db, errors, masking, reopening, schemas, timeline, track_page
from api.routes import event_stream
from api.routes.event_stream import EventStream
from api.routes.events import CHANGED, Accept, LastEventId
from api.routes.reports import look_up
from api.routes.wiring import IfNoneMatch, Wired, Wiring, names
from api.store import events, tracking

router = APIRouter(prefix="/v1", tags=["track"])

HTML: Final = "text/html"
PAGE: Final[dict[str, Any]] = {HTML: {"schema": {"type": "string"}, "example": "<!doctype html>"}}
FAILURES = errors.documented(
    errors.NotFound, errors.VALIDATION_FAILED, errors.DATABASE_UNAVAILABLE, errors.INTERNAL_ERROR
)
Token = Annotated[str, Path(description="Of `links.track` in the receipt: 43 characters.")]
MailToken = Annotated[str, Path(description="Of the link in a mail.")]
AcceptPage = Annotated[str, Header(alias="Accept", description="`text/html` for a page.")]


@router.get(
    "/track/{token}",
    operation_id="track",
    summary="How a report is getting on, by its private link",
    response_model=schemas.Track,
    responses={200: {"content": PAGE}, **FAILURES},
)
async def track(token: Token, wired: Wired, accept: AcceptPage = "") -> Response:
    """Show a report's timeline, in plain sentences and by field; as a page with `text/html`.

    Whoever has the link may see it. No name or address of a reporter is in it.
    """
    async with db.acquire(wired.pool) as conn:
        follower = await _follower(conn, token)
        found = await _track(conn, follower, token, wired)
    if HTML in accept:
        return HTMLResponse(
            track_page.track_page(found, token=token), headers=dict(track_page.HEADERS)
        )
    return _json(found.model_dump_json())


@router.get(
    "/track/{token}/events",
    operation_id="listTrackEvents",
    summary="What became of it since",
    response_model=schemas.TrackEvents,
    responses={
        **CHANGED,
        **errors.documented(
            errors.NotFound,
            errors.VALIDATION_FAILED,
            errors.TooManyStreams,
            errors.DATABASE_UNAVAILABLE,
            errors.INTERNAL_ERROR,
        ),
    },
)
async def list_track_events(
    token: Token,
    asked: Annotated[schemas.Since, Query()],
    wired: Wired,
    accept: Accept = "",
    if_none_match: IfNoneMatch = None,
    last_event_id: LastEventId = None,
) -> Response:
    """List the events after `since`, or stream them as `/v1/reports/{report_id}/events` does."""
    async with db.acquire(wired.pool) as conn:
        follower = await _follower(conn, token)
        last = follower["last"]
        if event_stream.wanted(accept):
            since = event_stream.beginning(asked.since, last_event_id)
            stream = wired.streams.open(follower["report_id"], since)
            return EventStream(wired.streams, stream, timeline.event_of, track_page.PRIVATE)
        etag = f'"{last}"'
        if names(if_none_match, etag):
            return Response(status_code=304, headers={**track_page.PRIVATE, "ETag": etag})
        rows = await events.list_events(conn, follower["report_id"], since=asked.since)
    told = [timeline.event_of(row) for row in rows if row["n"] <= last]
    found = schemas.TrackEvents(items=[one for one in told if one is not None], last=last)
    return _json(found.model_dump_json(), ETag=etag)


@router.post(
    "/track/{token}/still-there",
    operation_id="trackStillThere",
    summary="Say that it is still there",
    response_model=schemas.Track,
    responses={
        200: {"content": PAGE},
        303: {"description": "Done, from a page: back to it"},
        **FAILURES,
        **errors.documented(errors.NotClosed),
    },
)
async def say_still_there(token: Token, wired: Wired, accept: AcceptPage = "") -> Response:
    """Say that what the authority closed, or called fixed, is still there. Takes no body.

    The report is open again, and the authority is told; each follower once for each closing, and
    the same again changes nothing. Before it is closed this is refused.
    """
    async with db.acquire(wired.pool) as conn:
        async with conn.transaction():
            follower = await _follower(conn, token)
            own = follower["kind"] == reopening.REPORTER
            by = reopening.REPORTER if own else str(follower["id"])
            await reopening.say_still_there(conn, follower["report_id"], by=by)
        found = await _track(conn, follower, token, wired)
    wired.notifier.poke()
    return _back(found, token, accept)


@router.post(
    "/track/{token}/unsubscribe",
    operation_id="trackUnsubscribe",
    summary="Send no mail any more",
    response_model=schemas.Track,
    responses={
        200: {"content": PAGE},
        303: {"description": "Done, from a page: back to it"},
        **FAILURES,
    },
)
async def unsubscribe(token: Token, wired: Wired, accept: AcceptPage = "") -> Response:
    """Send this follower no mail any more. The private link goes on working. Takes no body."""
    async with db.acquire(wired.pool) as conn:
        follower = await _follower(conn, token)
        await tracking.unsubscribe(conn, follower["id"])
        found = await _track(conn, await _follower(conn, token), token, wired)
    return _back(found, token, accept)


@router.get(
    "/mail/{token}/confirm",
    operation_id="showConfirm",
    summary="The page that confirms an address",
    response_class=HTMLResponse,
    responses={200: {"content": PAGE}, **FAILURES},
)
async def show_confirm(token: MailToken, wired: Wired) -> Response:
    """Ask to press a button. Changes nothing: mail servers follow links to see where they lead."""
    async with db.acquire(wired.pool) as conn:
        await _mailed(conn, token)
    return _page(
        track_page.question_page(
            "News by mail",
            "Shall we mail you what becomes of this street report?",
            action="confirm",
            button="Yes, mail me",
        )
    )


@router.post(
    "/mail/{token}/confirm",
    operation_id="confirmMail",
    summary="Confirm an address",
    response_class=HTMLResponse,
    responses={200: {"content": PAGE}, **FAILURES},
)
async def confirm(token: MailToken, wired: Wired) -> Response:
    """Note that the address is theirs, and that they want mail. Takes no body."""
    async with db.acquire(wired.pool) as conn:
        await tracking.confirm(conn, (await _mailed(conn, token))["id"])
    return _page(
        track_page.notice_page(
            "News by mail", "Thank you. You get a mail when there is news, at most one an hour."
        )
    )


@router.get(
    "/mail/{token}/unsubscribe",
    operation_id="showUnsubscribe",
    summary="The page that ends the mail",
    response_class=HTMLResponse,
    responses={200: {"content": PAGE}, **FAILURES},
)
async def show_unsubscribe(token: MailToken, wired: Wired) -> Response:
    """Ask to press a button. Changes nothing."""
    async with db.acquire(wired.pool) as conn:
        await _mailed(conn, token)
    return _page(
        track_page.question_page(
            "No more mail",
            "Shall we send you no more mail about this street report?",
            action="unsubscribe",
            button="Yes, no more mail",
        )
    )


@router.post(
    "/mail/{token}/unsubscribe",
    operation_id="unsubscribeMail",
    summary="End the mail",
    response_class=HTMLResponse,
    responses={200: {"content": PAGE}, **FAILURES},
)
async def unsubscribe_mail(token: MailToken, wired: Wired) -> Response:
    """Send no mail any more, at once (RFC 8058). Whatever the body says, it is not read."""
    async with db.acquire(wired.pool) as conn:
        await tracking.unsubscribe(conn, (await _mailed(conn, token))["id"])
    return _page(track_page.notice_page("No more mail", "You get no mail about this report."))


async def _mailed(conn: asyncpg.Connection, token: str) -> asyncpg.Record:
    row = await tracking.find_by_mail(conn, _digest(token))
    if row is None:
        raise errors.NotFound("this link is of no mail of ours: check that you have all of it")
    return row


def _page(text: str) -> Response:
    return HTMLResponse(text, headers=dict(track_page.HEADERS))


async def _follower(conn: asyncpg.Connection, token: str) -> asyncpg.Record:
    follower = await tracking.find_follower(conn, _digest(token))
    if follower is None:
        raise errors.NotFound("this link leads to no report: check that you have all of it")
    return follower


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


async def _track(
    conn: asyncpg.Connection, follower: asyncpg.Record, token: str, wired: Wiring
) -> schemas.Track:
    report = await look_up(conn, follower["report_id"], wired, sees=lambda _row: True)
    happened = await events.list_events(conn, follower["report_id"])
    told = [timeline.event_of(row) for row in happened]
    who = report.current.authority
    # What was said by who has it now
    moved = max((event.n for event in report.events if event.kind in timeline.MOVES), default=0)
    now = [event for event in report.events if event.n > moved]
    references = [event.reference for event in now if event.reference]
    expected = [event.expected_on for event in now if event.expected_on]
    ended = report.status in {"fixed", "closed"}
    base = f"/v1/track/{token}"
    return schemas.Track(
        report_id=follower["report_id"],
        received_at=report.received_at,
        category=follower["category"],
        description=masking.mask(follower["description"] or ""),
        headline=timeline.headline(report, dry_run=wired.settings.dry_run),
        state=report.state,
        status=report.status,
        authority=schemas.TrackAuthority(id=who.id, name=who.name) if who else None,
        why=report.current.reason,
        reference=references[-1] if references else None,
        expected_on=expected[-1] if expected and not ended else None,
        reports=1 + sum(event.kind == "me_too" for event in report.events),
        dry_run=wired.settings.dry_run or report.state == "not_sent",
        can_say_still_there=ended,
        mail=_mail(follower, wired),
        events=[one for one in told if one is not None],
        links=schemas.TrackLinks(
            self=base,
            events=f"{base}/events",
            still_there=f"{base}/still-there",
            unsubscribe=f"{base}/unsubscribe",
        ),
    )


def _mail(follower: asyncpg.Record, wired: Wiring) -> schemas.MailState:
    if not follower["notify"]:
        return "not_wanted"
    if follower["unsubscribed_at"] is not None:
        return "unsubscribed"
    if follower["mail_stopped"] is not None:
        return "stopped"
    if not wired.settings.mails_followers:
        return "unavailable"
    return "on" if follower["confirmed_at"] is not None else "unconfirmed"


def _json(body: str, **headers: str) -> Response:
    headers = {**track_page.PRIVATE, **headers}
    return Response(body, media_type="application/json", headers=headers)


def _back(found: schemas.Track, token: str, accept: str) -> Response:
    if HTML in accept:
        # Relative: what is before it may be a proxy's.
        return RedirectResponse(f"../{token}", status_code=303, headers=dict(track_page.PRIVATE))
    return _json(found.model_dump_json())
