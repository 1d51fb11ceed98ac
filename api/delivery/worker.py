"""The worker process: claims what is due, sends it with no connection held, settles it.

It promises that a delivery is lost neither to its own death (the lease expires and another worker
claims it again) nor to PostgreSQL's, and that one failing delivery stops no other. What an answer
means is `policy`'s, how the queue stays consistent is `outbox`'s.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import asyncpg
import structlog

from api import db
from api.delivery import outbox, policy
from api.delivery.channels import Channel, channels
from api.delivery.channels.open311 import Open311
from api.delivery.egress import Egress
from api.delivery.outbox import Claimed
from api.delivery.polling import Poller
from api.settings import Settings
from api.vault import SecretUnreadable, Vault, open_vault

log = structlog.get_logger(__name__)

# Deliveries of one endpoint in flight, over all workers
PER_ENDPOINT = 8
# What arrives together is claimed together.
BREATH_S = 0.01
LONGEST_BACKOFF_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """How often to look without being told; tests look more often."""

    idle_s: float
    release_s: float


async def run_worker(
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    idle_s: float = 5.0,
    release_s: float = 5.0,
    poll_s: float = 5.0,
) -> None:
    """Forward what is owed until `stop` is set, then finish what is in flight.

    Without `stop`, SIGTERM and SIGINT set one. Waits for a database that is not there yet; raises
    `SchemaOutdated` for one that is not migrated, and `VaultUnusable` for keys that cannot be read.
    In a dry run nothing is sent to anybody, and nobody is asked what became of anything.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    dsn = await asyncio.to_thread(db.resolve_dsn, settings)
    if settings.delivery_mode == "live":
        vault = await asyncio.to_thread(open_vault, settings)
    else:
        vault = None  # a copy of the database is no reason to hand out the keys
        log.warning("DRY RUN: nothing is sent to anybody; GEOROUTER_DELIVERY_MODE=live sends")
    async with (
        _patient_pool(dsn, settings.database_pool, stop) as pool,
        Egress(allow=settings.egress_allow, timeout_s=settings.delivery_timeout_s) as egress,
    ):
        if pool is not None:
            worker = _Worker(
                settings,
                pool,
                channels(egress, clock, settings),
                vault,
                stop,
                jitter,
                _Pace(idle_s=idle_s, release_s=release_s),
            )
            async with asyncio.TaskGroup() as beside:
                if vault is not None:
                    authorities = Open311(egress, clock)
                    poller = Poller(pool, authorities, vault, stop, clock, jitter, every_s=poll_s)
                    beside.create_task(poller.run())
                await worker.run(dsn)


@asynccontextmanager
async def _patient_pool(
    dsn: str, size: int, stop: asyncio.Event
) -> AsyncIterator[asyncpg.Pool | None]:
    """A pool, as soon as there is a database with the right schema; None if stopped before."""
    trouble = _Trouble()
    while not stop.is_set():
        try:
            pool = await db.create_pool(dsn, size=size)
        except db.DatabaseUnavailable as error:
            await _wait(stop, trouble.seen(error))
        else:
            trouble.over()
            break
    else:
        yield None
        return
    async with pool:
        async with db.acquire(pool) as conn:
            await db.check_schema(conn)
        yield pool


class _Worker:
    def __init__(
        self,
        settings: Settings,
        pool: asyncpg.Pool,
        by_name: Mapping[str, Channel],
        vault: Vault | None,
        stop: asyncio.Event,
        jitter: Callable[[], float],
        pace: _Pace,
    ) -> None:
        self._pool = pool
        self._channels = by_name
        self._vault = vault
        self._stop = stop
        self._jitter = jitter
        self._pace = pace
        self._slots = settings.worker_concurrency
        self._lease_s = settings.delivery_lease_s
        self._in_flight = 0
        self._release_at = 0.0
        # Set by a NOTIFY, by a slot that becomes free, and by the stop
        self._wake = asyncio.Event()

    async def run(self, dsn: str) -> None:
        log.info("worker_started", slots=self._slots)
        async with asyncio.TaskGroup() as sending:
            background = [
                sending.create_task(self._listen(dsn)),
                sending.create_task(self._wake_on_stop()),
            ]
            trouble = _Trouble()
            while not self._stop.is_set():
                self._wake.clear()
                try:
                    pause_s = await self._step(sending)
                except db.DatabaseUnavailable as error:
                    pause_s = trouble.seen(error)
                except Exception as error:
                    # A deadlock, a cancelled query: the transaction is undone, and is tried again.
                    log.exception("claim_failed")
                    pause_s = trouble.seen(error)
                else:
                    trouble.over()
                if pause_s > 0 and await _wait(self._wake, pause_s):
                    await asyncio.sleep(BREATH_S)
            log.info("worker_stopping", in_flight=self._in_flight)
            for task in background:
                task.cancel()
        log.info("worker_stopped")

    async def _step(self, sending: asyncio.TaskGroup) -> float:
        """Claim and start what there is; how long there is nothing to do, in seconds."""
        if time.monotonic() >= self._release_at:
            async with db.acquire(self._pool) as conn:
                released = await outbox.release_held(conn)
            if released:
                log.info("held_reports_released", count=released)
            if released < outbox.RELEASE_BATCH:
                self._release_at = time.monotonic() + self._pace.release_s
        free = self._slots - self._in_flight
        if free == 0:
            return self._pace.idle_s
        async with db.acquire(self._pool) as conn:
            leased_at = time.monotonic()
            claimed = await outbox.claim(
                conn, limit=free, lease_s=self._lease_s, per_endpoint=PER_ENDPOINT
            )
            due_in_s = None if claimed else await outbox.next_due_in(conn)
        for one in claimed:
            self._in_flight += 1
            sending.create_task(self._deliver(one, leased_at + self._lease_s))
        if claimed:
            return 0.0
        pauses_s = [self._pace.idle_s, self._release_at - time.monotonic()]
        if due_in_s is not None:
            pauses_s.append(due_in_s)
        return max(BREATH_S, min(pauses_s))

    async def _deliver(self, claimed: Claimed, lease_ends: float) -> None:
        try:
            outcome = await self._send(claimed, lease_ends)
            following = policy.after(
                outcome,
                attempt=claimed.attempt,
                age_s=claimed.age_s,
                jitter=self._jitter(),
                rejections=claimed.rejections,
            )
            settled = await self._settle(claimed, outcome, following, lease_ends)
            log.info(
                "delivery_attempted" if settled else "delivery_lease_lost",
                delivery=str(claimed.delivery_id),
                endpoint=str(claimed.endpoint_id),
                attempt=claimed.attempt,
                outcome=type(outcome).__name__.lower(),
                status=outcome.status,
                state=following.state,
                delay_s=round(following.delay_s, 1),
            )
        except Exception:
            # Nothing is lost: the lease ends, and the delivery is due again.
            log.exception("delivery_failed", delivery=str(claimed.delivery_id))
        finally:
            self._in_flight -= 1
            self._wake.set()

    async def _send(self, claimed: Claimed, lease_ends: float) -> policy.Outcome:
        channel = self._channels.get(claimed.channel)
        if channel is None:
            return policy.Deferred(why=f"there is no channel {claimed.channel!r}")
        try:
            if self._vault is not None:
                claimed = replace(claimed, secret=self._vault.open(claimed.secret))
        except SecretUnreadable as error:
            return policy.Deferred(why=str(error))
        try:
            # A channel bounds its own time; this is for one that fails to.
            async with asyncio.timeout(lease_ends - time.monotonic()):
                return await channel.send(claimed)
        except Exception as error:
            # Only the class goes into the record that the authority can read.
            log.exception("channel_failed", delivery=str(claimed.delivery_id))
            # Sent or not: the lease may have ended in the middle of it.
            return policy.Deferred(why=type(error).__name__, unsure=True)

    async def _settle(
        self,
        claimed: Claimed,
        outcome: policy.Outcome,
        following: policy.Next,
        lease_ends: float,
    ) -> bool:
        """Settle, waiting for the database as long as the lease lasts: then it is void anyway."""
        trouble = _Trouble()
        while True:
            try:
                async with db.acquire(self._pool) as conn:
                    return await outbox.settle(conn, claimed, outcome, following)
            except db.DatabaseUnavailable as error:
                pause_s = trouble.seen(error)
                if time.monotonic() + pause_s >= lease_ends:
                    return False
                await asyncio.sleep(pause_s)

    async def _listen(self, dsn: str) -> None:
        """Wake up on every NOTIFY; missed ones cost `idle_s` at most, so errors may pass."""
        while True:
            closed = asyncio.Event()
            try:
                conn = await db.connect(dsn)
                try:
                    conn.add_termination_listener(lambda _, closed=closed: closed.set())
                    with db.translate():
                        await conn.add_listener(outbox.WAKE_UP, lambda *_: self._wake.set())
                    self._wake.set()
                    await closed.wait()
                finally:
                    conn.terminate()
            except db.DatabaseUnavailable:
                pass  # the claims tell of it
            except Exception:
                log.exception("listen_failed")
            await asyncio.sleep(self._jitter() + BREATH_S)

    async def _wake_on_stop(self) -> None:
        await self._stop.wait()
        self._wake.set()


class _Trouble:
    """Backs off while something keeps failing, and logs its beginning and its end only."""

    def __init__(self) -> None:
        self._times = 0

    def seen(self, error: Exception) -> float:
        """Count a failure; returns the seconds to wait before the next try."""
        if self._times == 0:
            # The text of other errors may quote what was stored.
            known = isinstance(error, db.DatabaseUnavailable)
            log.warning("database_trouble", error=str(error) if known else type(error).__name__)
        self._times += 1
        return min(LONGEST_BACKOFF_S, 0.05 * 2.0 ** min(self._times, 10))

    def over(self) -> None:
        """Count a success."""
        if self._times:
            log.info("database_back", failures=self._times)
        self._times = 0


async def _wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for the event, but not longer; whether it came."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
