"""Counts a report with one that tells of the same: "that is mine too".

It promises that a report is joined once for each idempotency key, with an event that counts it, its
reporter's private link, and word to the council at the counts of `TOLD_AT`, all or nothing. What
joins is no report of its own: no delivery of it is owed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import hypot
from typing import Any, Final
from uuid import UUID

import asyncpg

from api.delivery.channels.webhook import DECISION_TOLD
from api.delivery.outbox import owe_event
from api.errors import FieldRefused
from api.schemas import DecisionOut, Links, Receipt, ReportIn
from api.store import events, followers, reroutes
from api.store.followers import NewFollower
from georouter.nearest import metres_per_degree

NEAR_M: Final = 250.0
TOLD_AT: Final = frozenset({2, 3, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000})
"""How many reports there are of one defect when its council is told so."""

ANEW: Final = "send this one as a new report, without duplicate_of"


async def join(
    conn: asyncpg.Connection,
    body: ReportIn,
    follower: NewFollower,
    token: str,
    *,
    idempotency_key: str,
    api_key_id: UUID,
    rehearsal: bool,
) -> Receipt | None:
    """Count `body` with the report that it names; None if the key was used before.

    Committed on return. Raises `FieldRefused` if that one cannot be joined, or is not the same.
    """
    report_id = body.duplicate_of
    assert report_id is not None  # noqa: S101 - the caller's promise
    async with conn.transaction():
        received_at = await followers.claim_key(
            conn,
            api_key_id=api_key_id,
            idempotency_key=idempotency_key,
            request_sha256=body.sha256(),
            report_id=report_id,
            follower_id=follower.id,
        )
        if received_at is None:
            return None
        # Who joins, closes or hands it over takes turns; what follows sees what those before did.
        await reroutes.lock_report(conn, report_id)
        original = await followers.find_original(conn, report_id)
        if original is None:
            raise FieldRefused("duplicate_of", f"there is no such report to be seen; {ANEW}")
        _check(body, original)
        reports = original["reports"] + 1
        decision = DecisionOut.model_validate(original["decision"])
        receipt = Receipt(
            id=report_id,
            received_at=received_at,
            category=original["category"],
            decision=decision,
            forwarding="joined",
            message=_message(original, reports, rehearsal=rehearsal),
            reports=reports,
            duplicate_of=report_id,
            status=original["status"],
            links=Links.of(report_id, token),
        )
        await events.add_event(conn, report_id, kind="me_too", detail={"reports": reports})
        await followers.insert_me_too(
            conn,
            report_id,
            follower,
            api_key_id=api_key_id,
            idempotency_key=idempotency_key,
            receipt=receipt.model_dump(mode="json", exclude={"links"}),
        )
        if reports in TOLD_AT:
            told = decision.model_dump(mode="json", include=set(DECISION_TOLD))
            about = {"report": {"id": str(report_id)}, "decision": told, "reports": reports}
            message = {"type": "report.updated", "data": about}
            await owe_event(conn, report_id, message, authority_id=original["authority_id"])
    return receipt


def _check(body: ReportIn, original: Mapping[str, Any]) -> None:
    if original["closed"]:
        raise FieldRefused("duplicate_of", f"that report is closed; if the defect is there, {ANEW}")
    lon_m, lat_m = metres_per_degree(original["lat"])
    away_m = hypot((body.lon - original["lon"]) * lon_m, (body.lat - original["lat"]) * lat_m)
    if away_m > NEAR_M:
        raise FieldRefused(
            "duplicate_of",
            f"that report is {away_m:.0f} m away, and one of the same defect is within "
            f"{NEAR_M:.0f} m; {ANEW}",
        )


def _message(original: Mapping[str, Any], reports: int, *, rehearsal: bool) -> str:
    name = original["authority_name"]
    if rehearsal:
        return f"Received. This is a rehearsal: nothing is sent to {name}."
    if original["waiting"]:
        who_has_it = "We have this report already, and look for who is responsible"
    elif original["held"]:
        who_has_it = f"We have this report already, and keep it until {name} takes such reports"
    else:
        who_has_it = f"This report is with {name} already"
    said = original["status"]
    last = f" {name} said last: {said.replace('_', ' ')}." if said else ""
    return f"Received. {who_has_it}; with yours there are {reports} of it.{last}"
