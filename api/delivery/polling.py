"""Asks authorities what became of the service requests that our reports opened.

What they say becomes an event of the report, once. It promises that no connection of the database
is held while an authority answers, that one that hangs costs one time-out a round, and that asking
ends: when the service request has ended, when the endpoint is deleted, or after half a year.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import asyncpg
import structlog
from pydantic import ValidationError

from api import db
from api.delivery.channels.open311 import NotAnswered, Open311, Server
from api.delivery.georeport import FINAL, News, Row
from api.delivery.pacing import rounds
from api.store import reroutes, service_requests
from api.vault import SecretUnreadable, Vault

log = structlog.get_logger(__name__)

BATCH = 50
# Longer than a batch of one endpoint takes even where each answer comes at the last moment
LEASE_S = 900.0
MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
GIVE_UP_S = 180 * DAY_S
# Younger than the first, asked every second: (age, interval).
TOKEN_PACE = ((MINUTE_S, 10.0), (HOUR_S, 5 * MINUTE_S), (DAY_S, HOUR_S))
STATUS_PACE = ((HOUR_S, 10 * MINUTE_S), (3 * DAY_S, HOUR_S), (30 * DAY_S, 6 * HOUR_S))
SLOWEST_S = DAY_S


def pause_s(*, age_s: float, failures: int, pending: bool, jitter: float) -> float:
    """How long until a service request `age_s` old is asked about again.

    `pending`: its number is not known yet. `failures` counts those in a row, each doubles the
    pause. `jitter` in [0, 1) spreads it over half to the whole.
    """
    pace = TOKEN_PACE if pending else STATUS_PACE
    interval_s = next((every_s for under_s, every_s in pace if age_s < under_s), SLOWEST_S)
    return float(min(interval_s * 2 ** min(failures, 10), SLOWEST_S) * (1 + jitter) / 2)


@dataclass(frozen=True, slots=True)
class _Said:
    """What came of asking about one service request; `update_id` where the authority gave one."""

    reference: str | None = None
    news: Sequence[tuple[str | None, News]] = ()


class Poller:
    """The loop, beside a worker's. `clock` gives Unix seconds."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        authorities: Open311,
        vault: Vault,
        stop: asyncio.Event,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        *,
        every_s: float,
    ) -> None:
        self._pool = pool
        self._authorities = authorities
        self._vault = vault
        self._stop = stop
        self._clock = clock
        self._jitter = jitter
        self._every_s = every_s

    async def run(self) -> None:
        """Ask what is due until the stop."""
        await rounds(
            self.round, self._stop, batch=BATCH, every_s=self._every_s, trouble="polling_failed"
        )

    async def round(self) -> int:
        """Ask about what is due, at most `BATCH`; how many that were."""
        async with db.acquire(self._pool) as conn:
            started = time.monotonic()
            due = await service_requests.claim(conn, limit=BATCH, lease_s=LEASE_S)
        async with asyncio.TaskGroup() as tasks:
            for _, mine in groupby(due, key=lambda row: row["endpoint_id"]):
                tasks.create_task(self._ask_endpoint(list(mine), started + LEASE_S))
        return len(due)

    async def _ask_endpoint(self, mine: Sequence[asyncpg.Record], until: float) -> None:
        """One after the other; after a failure the rest is not asked, it would fail as well."""
        for row in filter(_is_over, mine):
            await self._settle(row, _Said(), end=True)
        live = [row for row in mine if not _is_over(row)]
        fault: NotAnswered | None = None
        for row in live:
            if self._stop.is_set() or time.monotonic() >= until:
                return  # due again when the lease ends
            said = None
            try:
                if row is live[0]:
                    server, updates = await self._reach(live)
                if fault is None:
                    said = await self._ask(server, row, updates)
            except NotAnswered as error:
                log.warning("poll_failed", delivery=str(row["delivery_id"]), why=str(error))
                fault = None if error.unknown else error
            await self._settle(row, said)

    async def _reach(self, live: Sequence[asyncpg.Record]) -> tuple[Server, list[tuple[Row, News]]]:
        """The server that these are asked of, and all its news, where it tells them at once."""
        first = live[0]
        try:
            server = Server.of(first["url"], self._vault.open(first["secret"]), first["config"])
        except (SecretUnreadable, ValidationError) as error:
            # The text of a validation error quotes what is stored.
            known = isinstance(error, SecretUnreadable)
            raise NotAnswered(str(error) if known else "the endpoint's config is broken") from None
        numbered = [row["answered_at"] for row in live if row["reference"]]
        if not server.config.updates or not numbered:
            return server, []
        try:
            return server, await self._authorities.updates(server, since=min(numbered))
        except NotAnswered as error:
            # Not there for one is not there for all.
            raise NotAnswered(str(error)) from None

    async def _ask(
        self, server: Server, row: asyncpg.Record, updates: Sequence[tuple[Row, News]]
    ) -> _Said:
        if row["reference"] is None:
            return _Said(reference=await self._authorities.exchange(server, row["token"]))
        if server.config.updates:
            mine = [
                (update.get("update_id"), news)
                for update, news in updates
                if update.get("service_request_id") == row["reference"]
            ]
            return _Said(news=mine)
        news = await self._authorities.status(server, row["reference"])
        return _Said(news=[(None, news)] if news is not None else [])

    async def _settle(self, row: asyncpg.Record, said: _Said | None, *, end: bool = False) -> None:
        """Store what was said, news and all, in one transaction; None if there was no answer."""
        state, seen = row["state"], row["seen"]
        events: list[tuple[str, dict[str, Any]]] = []
        for update_id, news in said.news if said is not None else ():
            if news.digest == seen and update_id is None:
                continue
            seen = news.digest
            told = news.state or state
            # Neither a word that we know nor a text: nothing that a reporter could be told.
            if told is None or (news.state is None and not news.note):
                continue
            detail = {
                "state": told,
                "reason": news.reason,
                "note": news.note,
                "reference": row["reference"],
                "source": "open311",
            }
            mark = update_id or f"{news.digest}:{news.at or ''}"
            # The authority's own number of the update may be no number of another authority's.
            key = f"open311:{row['endpoint_id']}:{row['delivery_id']}:{mark}"[:500]
            events.append((key, {name: value for name, value in detail.items() if value}))
            state = told
        pending = row["reference"] is None and not (said and said.reference)
        delay_s = pause_s(
            age_s=row["age_s"],
            failures=0 if said is not None else row["failures"] + 1,
            pending=pending,
            jitter=self._jitter(),
        )
        async with db.acquire(self._pool) as conn, conn.transaction():
            settled = await service_requests.settle(
                conn,
                delivery_id=row["delivery_id"],
                lease_ends=row["lease_ends"],
                answered=said is not None,
                reference=said.reference if said is not None else None,
                state=state,
                seen=seen,
                delay_s=None if end or state in FINAL else delay_s,
            )
            for key, detail in events if settled else ():
                await reroutes.tell(
                    conn,
                    row["report_id"],
                    authority_id=row["authority_id"],
                    detail=detail,
                    key=key,
                )


def _is_over(row: asyncpg.Record) -> bool:
    return bool(row["endpoint_deleted"] or row["age_s"] >= GIVE_UP_S)
