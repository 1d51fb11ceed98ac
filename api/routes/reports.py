"""`/v1/reports`: post a report, and ask how far it has come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Literal
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Depends, Header, Request, Response

from api import db, errors, intake, photos, rerouting, schemas
from api.auth import Caller, Role, require_role
from api.links import PhotoLinks
from api.rates import CLIENT
from api.routes.wiring import Calling, Wired, Wiring, json_only
from api.store import authorities, events, reports
from api.store import photos as photo_rows
from api.timeline import MOVES
from georouter.model import NotACandidate, UnknownCategory

router = APIRouter(prefix="/v1/reports", tags=["reports"])


@router.post(
    "",
    operation_id="postReport",
    summary="Post a report",
    status_code=201,
    response_model=schemas.Posted,
    dependencies=[Depends(json_only)],
    response_description="Stored, and on its way or held",
    responses={
        201: {
            "headers": {
                "Location": {"description": "The report.", "schema": {"type": "string"}},
                "Idempotency-Replayed": {
                    "description": "`true` if this answers an earlier request's report.",
                    "schema": {"type": "string"},
                },
            }
        },
        **errors.documented(
            errors.MALFORMED_JSON,
            errors.IdempotencyKeyInvalid,
            errors.RoleForbidden,
            errors.BODY_TOO_LARGE,
            errors.MediaTypeUnsupported,
            errors.VALIDATION_FAILED,
            UnknownCategory,
            NotACandidate,
            errors.OutsideServiceArea,
            errors.SwappedAxes,
            errors.IdempotencyKeyReused,
            errors.NoActiveDataset,
            errors.SealedUnreadable,
            *errors.KEYED,
        ),
    },
)
async def post_report(
    body: schemas.ReportIn,
    request: Request,
    wired: Wired,
    caller: Calling,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="1 to 255 printable ASCII characters, new for each report, the same for "
            "each retry. Recommended: without it a retry is a second report."
        ),
    ] = None,
) -> Response:
    """Store a report and forward it to the responsible authority.

    It is stored before this answers, exactly once for each `Idempotency-Key`. If the authority has
    no intake endpoint yet, the report is held, and forwarded as soon as there is one. Show
    `emergencies` at once: nobody reads reports in time to prevent harm. With `duplicate_of` it is
    counted with that report, and its reporter follows that one. `observed_at` may be any time: it
    is kept as the device says, apart from `received_at`.
    """
    require_role(caller, Role.APP)
    posted, replayed = await take(
        body, idempotency_key, wired, caller, client=request.scope.get(CLIENT)
    )
    headers = {"Location": posted.links.self}
    if replayed:
        headers["Idempotency-Replayed"] = "true"
    # As it is, and not by the framework, which would check and copy it once more.
    return Response(
        posted.model_dump_json(), status_code=201, headers=headers, media_type="application/json"
    )


async def take(
    body: schemas.ReportIn,
    idempotency_key: str | None,
    wired: Wiring,
    caller: Caller,
    *,
    client: str | None,
) -> tuple[schemas.Posted, bool]:
    """Take a report in, as `intake.accept` says, and wake the workers; whether it is a replay."""
    accepted = await intake.accept(
        body,
        idempotency_key=idempotency_key,
        caller=caller,
        pool=wired.pool,
        live=wired.live,
        vault=wired.vault,
        client=client,
        random_bytes=wired.random_bytes,
        rehearsal=wired.settings.dry_run,
    )
    if not accepted.replayed:
        wired.notifier.poke()
    posted = schemas.Posted.model_construct(  # of what was checked when it was made
        **dict(accepted.receipt),
        emergencies=[
            schemas.EmergencyNow(text=one.text, phone=one.phone)
            for one in wired.live.emergencies(
                lon=body.lon, lat=body.lat, category=body.category, answers=body.answers
            )
        ],
    )
    return posted, accepted.replayed


@router.get(
    "/{report_id}",
    operation_id="getReport",
    summary="How far a report has come",
    responses=errors.documented(errors.NotFound, errors.VALIDATION_FAILED, *errors.KEYED),
)
async def get_report(report_id: UUID, wired: Wired, caller: Calling) -> schemas.ReportOut:
    """Show a report's receipt, its state and its deliveries.

    To the app that posted it, the authority it went to, and operators; for others it is not there.
    """
    async with db.acquire(wired.pool) as conn:
        return await _show(conn, report_id, caller, wired)


@router.post(
    "/{report_id}/answer",
    operation_id="answerQuestion",
    summary="Answer the question of a report's decision",
    dependencies=[Depends(json_only)],
    responses=errors.documented(
        errors.MALFORMED_JSON,
        errors.RoleForbidden,
        errors.NotFound,
        errors.MediaTypeUnsupported,
        errors.VALIDATION_FAILED,
        NotACandidate,
        errors.NoActiveDataset,
        *errors.KEYED,
    ),
)
async def answer_question(
    report_id: UUID, body: schemas.AnswerIn, wired: Wired, caller: Calling
) -> schemas.ReportOut:
    """Say which candidate is meant, or on which road it is. For the app that posted the report.

    If another authority is responsible by the answer, the report goes there.
    """
    require_role(caller, Role.APP)
    async with db.acquire(wired.pool) as conn:
        async with conn.transaction():
            await rerouting.answer(
                conn,
                report_id,
                body,
                table=wired.live.require(),
                as_of=wired.live.today(),
                api_key_id=caller.key_id,
            )
        shown = await _show(conn, report_id, caller, wired)
    wired.notifier.poke()
    return shown


@router.post(
    "/{report_id}/photos",
    operation_id="attachPhoto",
    summary="Put a photo on a report",
    dependencies=[Depends(json_only)],
    responses=errors.documented(
        errors.MALFORMED_JSON,
        errors.RoleForbidden,
        errors.NotFound,
        errors.PhotoAttached,
        errors.PhotosEnough,
        errors.BODY_TOO_LARGE,
        errors.MediaTypeUnsupported,
        errors.VALIDATION_FAILED,
        *errors.KEYED,
    ),
)
async def attach_photo(
    report_id: UUID, body: schemas.PhotoIn, wired: Wired, caller: Calling
) -> schemas.ReportOut:
    """Put an upload on a report that was posted before, whole or still coming. At most three.

    For the app that posted the report. The council that has it is told; the same again changes
    nothing.
    """
    require_role(caller, Role.APP)
    async with db.acquire(wired.pool) as conn:
        async with conn.transaction():
            await photos.attach(conn, report_id, body.photo, api_key_id=caller.key_id)
        shown = await _show(conn, report_id, caller, wired)
    wired.notifier.poke()
    return shown


async def _show(
    conn: asyncpg.Connection, report_id: UUID, caller: Caller, wired: Wiring
) -> schemas.ReportOut:
    return await look_up(conn, report_id, wired, sees=caller.sees)


async def look_up(
    conn: asyncpg.Connection,
    report_id: UUID,
    wired: Wiring,
    *,
    sees: Callable[[asyncpg.Record], bool],
) -> schemas.ReportOut:
    """A report as it is by now. Raises `NotFound` unless it is there, and seen by who asks."""
    async with conn.transaction(isolation="repeatable_read", readonly=True):
        rows = await reports.find_report(conn, report_id)
        if not rows or not sees(rows[0]):
            raise errors.NotFound("there is no such report, or it is not yours to see")
        happened = await events.list_events(conn, report_id)
        speakers = await authorities.heirs(conn, rows[0]["authority_id"])
        with_it = await photo_rows.list_photos(conn, report_id)
    shown = [_photo(row, wired.links) for row in with_it]
    return _shape(rows, happened, speakers, shown, dry_run=wired.settings.dry_run)


def _shape(
    rows: Sequence[asyncpg.Record],
    happened: Sequence[asyncpg.Record],
    speakers: Sequence[UUID],
    shown: list[schemas.PhotoOut],
    *,
    dry_run: bool,
) -> schemas.ReportOut:
    report = rows[0]
    sent = [row for row in rows if row["delivery_id"] is not None]
    deliveries = [
        schemas.ReportDelivery(
            id=row["delivery_id"],
            endpoint_id=row["endpoint_id"],
            sequence=row["sequence"],
            state=row["state"],
            attempts=row["attempts"],
            last_outcome=row["last_outcome"],
            last_status=row["last_status"],
            reference=row["reference"],
            nothing_sent=row["nothing_sent"],
            delivered_at=row["settled_at"] if row["state"] == "delivered" else None,
            next_attempt_at=row["due_at"] if row["state"] == "pending" else None,
        )
        for row in sent
    ]
    state = _state(
        report, [one for one, row in zip(deliveries, sent, strict=True) if row["to_who_has_it"]]
    )
    # What was really sent stays sent, whatever the mode is by now.
    rehearsal = state == "not_sent" or (dry_run and state in {"held", "queued"})
    receipt = schemas.Receipt.of(
        report_id=report["id"],
        received_at=report["received_at"],
        decision=schemas.DecisionOut.model_validate(report["decision"]),
        held=report["held_on_receipt"],
        rehearsal=rehearsal,
    )
    told = [schemas.EventOut.of(row) for row in happened]
    # What somebody said who has it no more, or goes on saying, says nothing of the work.
    moved = max((event.n for event in told if event.kind in MOVES), default=0)
    statuses = [
        "reopened" if event.kind == "still_there" else event.state
        for event, row in zip(told, happened, strict=True)
        if (event.state is not None and row["authority_id"] in speakers)
        or event.kind == "still_there"
        if event.n > moved
    ]
    so_far = {
        "reports": 1 + sum(event.kind == "me_too" for event in told),
        "status": statuses[-1] if statuses else None,
    }
    return schemas.ReportOut(
        **{**dict(receipt), **so_far},
        state=state,
        current=schemas.DecisionOut.model_validate(report["current"]),
        answers=report["answers"],
        events=told,
        deliveries=deliveries,
        photos=shown,
    )


def _photo(row: asyncpg.Record, links: PhotoLinks) -> schemas.PhotoOut:
    stored = row["stored_at"] is not None
    link = links.make(row["id"]) if stored else None
    return schemas.PhotoOut(
        id=row["id"],
        state="stored" if stored else "uploading",
        width=row["width"],
        height=row["height"],
        url=link.url if link else None,
        expires_at=link.expires_at if link else None,
        public_url=f"{links.base}/v1/photos/{row['id']}/public" if row["public"] else None,
    )


def _state(
    report: asyncpg.Record, deliveries: Sequence[schemas.ReportDelivery]
) -> Literal["held", "queued", "forwarded", "not_sent", "undeliverable", "with_operator"]:
    """A report's state is what is best among its deliveries to the authority that has it."""
    if report["with_operator"]:
        return "with_operator"
    if report["rerouting"]:
        return "queued"
    states = {delivery.state for delivery in deliveries}
    if any(one.state == "delivered" and not one.nothing_sent for one in deliveries):
        return "forwarded"
    if report["held"]:
        return "held"
    if "pending" in states or "leased" in states:
        return "queued"
    return "not_sent" if "delivered" in states else "undeliverable"
