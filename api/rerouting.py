"""Routes reports again: after a "not ours", after an answer, and when an authority has ended.

It promises that nobody who refused a report is given it again, that it changes hands for refusals
three times at most, and that each step is an event that the reporter can see. A report is handed
over in one transaction; killed anywhere, it waits where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from api import db, errors
from api.delivery.channels.webhook import DECISION_TOLD
from api.delivery.liveness import WAKE_UP
from api.delivery.outbox import owe_event
from api.routing import LiveRouting, RoutingTable
from api.schemas import AnswerIn, AuthorityRef, CandidateOut, DecisionOut
from api.store import events, reroutes
from api.store.reroutes import Refusals
from georouter.model import DecisionState, NotACandidate, UnknownCategory

MOST_HOPS: Final = 3
FAULT: Final = "a fault of ours: it could not be routed again; the log has the report's id and why"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A stored report's question, as it is asked again."""

    lon: float
    lat: float
    category: str
    accuracy_m: float | None
    road_ref: str | None
    chosen: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any], **changed: Any) -> Asked:
        """From a report's row."""
        fields = ("lon", "lat", "category", "accuracy_m", "road_ref", "chosen")
        return cls(**{**{name: row[name] for name in fields}, **changed})


class NobodyLeft(Exception):  # noqa: N818 - reads as the sentence it is
    """No rule finds a body for a report; an operator must."""


async def reroute_all(pool: asyncpg.Pool, live: LiveRouting) -> int:
    """Route every waiting report again; returns how many. Raises `DatabaseUnavailable`.

    One that cannot be, because of a fault, goes to the operator and holds up no other.
    """
    count = 0
    while live.current is not None:
        async with db.acquire(pool) as conn, conn.transaction():
            row = await reroutes.next_reroute(conn)
            if row is None:
                break
            await _reroute(conn, row, live.current, as_of=live.today())
            count += 1
    return count


async def _reroute(
    conn: asyncpg.Connection, row: Mapping[str, Any], table: RoutingTable, *, as_of: date
) -> None:
    refusals = await reroutes.find_refusals(conn, row["id"])
    try:
        decision, authority = again(row, refusals, table, as_of=as_of)
    except NobodyLeft as nobody:
        await reroutes.send_to_triage(conn, row["id"], reason=str(nobody))
        log.info("report with operator", report=str(row["id"]), reason=str(nobody))
        return
    except Exception:
        # Left where it is, it would be the next one again, and all others would wait behind it.
        await reroutes.send_to_triage(conn, row["id"], reason=FAULT)
        log.exception("report not routed again", report=str(row["id"]))
        return
    await give(conn, row["id"], decision, authority, table, because=decision.reason)
    log.info("report rerouted", report=str(row["id"]), rule=decision.rule)


def again(
    row: Mapping[str, Any], refusals: Refusals, table: RoutingTable, *, as_of: date
) -> tuple[DecisionOut, AuthorityRef]:
    """Who is responsible for a report that its authority does not have any more.

    `row` is one of `next_reroute`. Raises `NobodyLeft`.
    """
    refused = refusals.codes
    if refusals.hops > MOST_HOPS:
        raise NobodyLeft(f"{refusals.hops} bodies have said that it is not theirs")
    chosen = row["chosen"] if row["chosen"] not in refused else None
    asked = Asked.of(row, chosen=chosen)
    try:
        try:
            decision = table.decide(asked, as_of=as_of, refused=refused)
        except NotACandidate:
            # chosen under other circumstances
            decision = table.decide(Asked.of(row, chosen=None), as_of=as_of, refused=refused)
    except UnknownCategory as error:
        raise NobodyLeft(str(error)) from None
    named = table.authority(row["named"]) if row["named"] not in refused else None
    if named is not None:
        decision = _given_to(decision, named, rule="named", why="named by who had it before")
    if decision.authority is None:
        raise NobodyLeft(decision.reason)
    if decision.authority.id == row["authority_id"]:
        raise NobodyLeft(f"{decision.authority.name} is over, and the rules name no successor")
    return decision, decision.authority


async def answer(
    conn: asyncpg.Connection,
    report_id: UUID,
    body: AnswerIn,
    *,
    table: RoutingTable,
    as_of: date,
    api_key_id: UUID,
) -> None:
    """Route a report by its reporter's answer, in place of any earlier one.

    The same again changes nothing. Call it in a transaction. Raises `NotFound` unless the key
    posted it, and `NotACandidate`.
    """
    row = await reroutes.lock_report(conn, report_id)
    if row is None or row["api_key_id"] != api_key_id:
        raise errors.NotFound("there is no such report, or another app posted it")
    refused = (await reroutes.find_refusals(conn, report_id)).codes
    asked = Asked.of(row, chosen=body.chosen, road_ref=body.road_ref)
    try:
        decision = table.decide(asked, as_of=as_of, refused=refused)
    except NotACandidate:
        if body.chosen is None:
            raise
        # it may have been offered only because of the road that was named
        asked = Asked.of(row, chosen=body.chosen)
        decision = table.decide(asked, as_of=as_of, refused=refused)
    if decision.authority is None:
        raise errors.FieldRefused("report", "nobody we know of answers there any more")
    settled = decision.authority.id == row["authority_id"] and not row["waiting"]
    if settled and asked == Asked.of(row):
        return
    await events.add_event(
        conn,
        report_id,
        kind="answered",
        detail={"reason": decision.reason, **body.model_dump(exclude_none=True)},
    )
    await give(
        conn,
        report_id,
        decision,
        decision.authority,
        table,
        before=None if row["with_operator"] else row["authority_id"],
        because=decision.reason,
        chosen=asked.chosen,
        road_ref=asked.road_ref,
    )


def assigned(
    row: Mapping[str, Any], authority: AuthorityRef, table: RoutingTable, *, as_of: date
) -> DecisionOut:
    """The decision by which an operator gives a report to an authority."""
    try:
        decision = table.decide(Asked.of(row, chosen=None), as_of=as_of)
    except UnknownCategory as error:
        raise errors.FieldRefused("report", f"{error}; restore the category in the rules") from None
    return _given_to(decision, authority, rule="operator", why="named by an operator")


async def give(
    conn: asyncpg.Connection,
    report_id: UUID,
    decision: DecisionOut,
    authority: AuthorityRef,
    table: RoutingTable,
    *,
    because: str,
    before: UUID | None = None,
    chosen: str | None = None,
    road_ref: str | None = None,
) -> None:
    """Give a report to an authority by a new decision, and say so. Its row must be locked.

    `before` is who had it, unless they know already: they are told that it has gone. Who has it
    already is told the decision.
    """
    await reroutes.hand_over(
        conn,
        report_id,
        decision=decision.model_dump(mode="json"),
        dataset_id=table.dataset_id,
        authority_id=authority.id,
        chosen=chosen,
        road_ref=road_ref,
    )
    about = {"report": {"id": str(report_id)}}
    if before != authority.id:
        await events.add_event(
            conn,
            report_id,
            kind="rerouted",
            authority_id=authority.id,
            detail={"rule": decision.rule, "reason": because},
        )
        if before is not None and await reroutes.has_it(conn, report_id, before):
            who = {"id": str(authority.id), "name": authority.name}
            gone = {**about, "authority": who, "reason": because}
            message = {"type": "report.withdrawn", "data": gone}
            await owe_event(conn, report_id, message, authority_id=before)
    if await reroutes.has_it(conn, report_id, authority.id):
        told = decision.model_dump(mode="json", include=set(DECISION_TOLD))
        message = {"type": "report.updated", "data": {**about, "decision": told}}
        await owe_event(conn, report_id, message, authority_id=authority.id)


def _given_to(
    decision: DecisionOut, authority: AuthorityRef, *, rule: str, why: str
) -> DecisionOut:
    """The decision with an authority in front that somebody has named."""
    known = next((one for one in decision.candidates if one.code == authority.code), None)
    first = known or CandidateOut(code=authority.code, name=authority.name, layer=None, reason=why)
    return decision.model_copy(
        update={
            "state": DecisionState.CERTAIN,
            "rule": rule,
            "reason": f"{decision.reason}; {authority.name} was {why}",
            "authority": authority,
            "candidates": [
                first,
                *(one for one in decision.candidates if one.code != authority.code),
            ],
            "question": None,
        }
    )


async def run(pool: asyncpg.Pool, live: LiveRouting, *, every_s: float) -> None:
    """Wind up what has ended and reroute what waits, for ever."""
    cut_off = False
    while True:
        try:
            await live.refresh(pool)
            async with db.acquire(pool) as conn, conn.transaction():
                ended = await reroutes.wind_up(conn)
            if ended:
                log.info("authorities wound up", count=ended)
            if await reroute_all(pool, live):
                async with db.acquire(pool) as conn:
                    await conn.execute(f"NOTIFY {WAKE_UP}")
            cut_off = False
        except db.DatabaseUnavailable:
            if not cut_off:
                log.warning("rerouting waits", reason="database unavailable")
            cut_off = True
        except Exception:
            # A loop that ended would leave reports waiting without a sign.
            log.exception("rerouting failed")
        await asyncio.sleep(every_s)
