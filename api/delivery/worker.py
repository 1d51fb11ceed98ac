"""The worker process: claims what is due, sends it with no connection held, settles it.

It promises that a delivery is lost neither to its own death (other workers see its session end and
claim again what it held; at the latest the lease expires) nor to PostgreSQL's, and that neither a
failing delivery nor any number of hung endpoints stop another. What an answer means is `policy`'s,
how the queue stays consistent is `outbox`'s.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from uuid import UUID

import asyncpg
import structlog

from api import db
from api.delivery import liveness, outbox, policy
from api.delivery.channels import Channel, channels
from api.delivery.channels.open311 import Open311
from api.delivery.egress import Egress
from api.delivery.outbox import Claimed
from api.delivery.pacing import wait
from api.delivery.polling import Poller
from api.delivery.verification import Verifier, unsealed
from api.links import PhotoLinks
from api.settings import Settings
from api.vault import SecretUnreadable, Vault, open_vault

log = structlog.get_logger(__name__)

# Deliveries of one endpoint in flight, over all workers
PER_ENDPOINT = 8
# One that has been in flight for so long hangs: it gives its slot to another, up to this many, so
# that the endpoints that do not answer, which nobody can know beforehand, hold up none that does.
HANGING_AFTER_S = 1.0
MAX_HANGING = 750
# What arrives together is claimed together.
BREATH_S = 0.01
# Less than a second, so that after an outage what was sent is settled before it counts as orphaned.
LONGEST_BACKOFF_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pace:
    """How often to look without being told; tests look more often."""

    idle_s: float
    release_s: float
    orphans_s: float


async def run_worker(
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.time,
    jitter: Callable[[], float] = random.random,
    random_id: Callable[[], int] = lambda: secrets.randbelow(2**31 - 1) + 1,
    idle_s: float = 5.0,
    release_s: float = outbox.RELEASE_EVERY_S,
    orphans_s: float = 1.0,
    poll_s: float = 5.0,
    probe_s: float = 2.0,
) -> None:
    """Forward what is owed until `stop` is set, then finish what is in flight.

    Without `stop`, SIGTERM and SIGINT set one. Waits for a database that is not there yet; raises
    `SchemaOutdated` for one that is not migrated, and `VaultUnusable` for keys that cannot be read.
    In a dry run nothing is sent to anybody, nobody is asked what became of anything, and no
    endpoint becomes active.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    dsn = await asyncio.to_thread(db.resolve_dsn, settings)
    if settings.dry_run:
        vault = None  # a copy of the database is no reason to hand out the keys
        log.warning("DRY RUN: nothing is sent to anybody; GEOROUTER_DELIVERY_MODE=live sends")
    else:
        vault = await asyncio.to_thread(open_vault, settings)
    if vault is not None and settings.public_url is None:
        log.warning(
            "GEOROUTER_PUBLIC_URL is not set: councils cannot open the links to photos",
            base=settings.link_base,
        )
    async with (
        _patient_pool(dsn, settings.database_pool, stop) as pool,
        Egress(allow=settings.egress_allow, timeout_s=settings.delivery_timeout_s) as egress,
    ):
        if pool is not None:
            by_name = channels(egress, clock, settings)
            worker = _Worker(
                settings,
                pool,
                by_name,
                vault,
                stop,
                jitter,
                random_id,
                _Pace(idle_s=idle_s, release_s=release_s, orphans_s=orphans_s),
            )
            async with asyncio.TaskGroup() as beside:
                if vault is not None:
                    authorities = Open311(egress, clock)
                    poller = Poller(pool, authorities, vault, stop, clock, jitter, every_s=poll_s)
                    beside.create_task(poller.run())
                    lease_s = settings.delivery_lease_s
                    verifier = Verifier(
                        pool, by_name, vault, stop, jitter, lease_s=lease_s, every_s=probe_s
                    )
                    beside.create_task(verifier.run())
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
            await wait(stop, trouble.seen(error))
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


def linked(claimed: Claimed, links: PhotoLinks) -> Claimed:
    """The same with a link to each photo, alike in all tries."""
    photos = []
    for photo in claimed.photos:
        link = links.make(UUID(photo["id"]), since=claimed.first_tried_at)
        photos.append(
            {
                "id": photo["id"],
                "url": link.url,
                "expires_at": outbox.rfc3339(link.expires_at),
                "width": photo["width"],
                "height": photo["height"],
                "content_type": "image/jpeg",
            }
        )
    return replace(claimed, photos=photos)


class _Worker:
    def __init__(
        self,
        settings: Settings,
        pool: asyncpg.Pool,
        by_name: Mapping[str, Channel],
        vault: Vault | None,
        stop: asyncio.Event,
        jitter: Callable[[], float],
        random_id: Callable[[], int],
        pace: _Pace,
    ) -> None:
        self._pool = pool
        self._channels = by_name
        self._vault = vault
        self._links = PhotoLinks(settings.link_base, vault) if vault is not None else None
        self._stop = stop
        self._jitter = jitter
        self._random_id = random_id
        self._pace = pace
        self._slots = settings.worker_concurrency
        self._lease_s = settings.delivery_lease_s
        # Since when each attempt is in flight, by lease token; the oldest first
        self._in_flight: dict[UUID, float] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._release_at = 0.0
        # Under which leases are taken; None while no session of ours holds its lock
        self._id: int | None = None
        # Set by a NOTIFY, by a slot that becomes free, by a new id, and by the stop
        self._wake = asyncio.Event()

    async def run(self, dsn: str) -> None:
        log.info("worker_started", slots=self._slots)
        async with asyncio.TaskGroup() as background:
            # These go on until the last attempt is settled: without its session it is an orphan.
            tasks = [
                background.create_task(self._live(dsn)),
                background.create_task(self._wake_on_stop()),
            ]
            async with asyncio.TaskGroup() as sending:
                await self._claim_until_stopped(sending)
                log.info("worker_stopping", in_flight=len(self._in_flight))
            for task in tasks:
                task.cancel()
        with suppress(db.DatabaseUnavailable):
            async with db.acquire(self._pool) as conn:
                await self._write_counts(conn)
        log.info("worker_stopped")

    async def _claim_until_stopped(self, sending: asyncio.TaskGroup) -> None:
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
            if pause_s > 0 and await wait(self._wake, pause_s):
                await asyncio.sleep(BREATH_S)

    async def _step(self, sending: asyncio.TaskGroup) -> float:
        """Claim and start what there is; how long there is nothing to do, in seconds."""
        if time.monotonic() >= self._release_at:
            async with db.acquire(self._pool) as conn:
                released = await outbox.release_held(conn)
            if released:
                log.info("held_reports_released", count=released)
            self._release_at = time.monotonic() + self._pace.release_s
        # Kept: claimed under an id that is lost meanwhile, they are orphans, as they should be.
        worker = self._id
        if worker is None:
            return self._pace.idle_s
        free, frees_in_s = self._room()
        if free == 0:
            return min(self._pace.idle_s, frees_in_s)
        async with db.acquire(self._pool) as conn:
            leased_at = time.monotonic()
            claimed = await outbox.claim(
                conn,
                worker=worker,
                limit=free,
                lease_s=self._lease_s,
                per_endpoint=PER_ENDPOINT,
            )
            due_in_s = None if claimed else await outbox.next_due_in(conn)
        for one in claimed:
            self._in_flight[one.lease_token] = time.monotonic()
            sending.create_task(self._deliver(one, leased_at + self._lease_s))
        if claimed:
            return 0.0
        pauses_s = [self._pace.idle_s, self._release_at - time.monotonic()]
        if due_in_s is not None:
            pauses_s.append(due_in_s)
        return max(BREATH_S, min(pauses_s))

    def _room(self) -> tuple[int, float]:
        """How many may be claimed, and in how many seconds the next one hangs, making room."""
        now = time.monotonic()
        lively = 0
        next_hangs_in_s = self._pace.idle_s
        for started in reversed(self._in_flight.values()):
            if started <= now - HANGING_AFTER_S:
                break
            lively += 1
            next_hangs_in_s = started + HANGING_AFTER_S - now
        limit = self._slots + MAX_HANGING - len(self._in_flight)
        return max(0, min(self._slots - lively, limit)), max(BREATH_S, next_hangs_in_s)

    async def _deliver(self, claimed: Claimed, lease_ends: float) -> None:
        try:
            outcome = await self._send(claimed, lease_ends)
            following = policy.after(
                outcome,
                attempt=claimed.tries,
                age_s=claimed.age_s,
                jitter=self._jitter(),
                rejections=claimed.rejections,
            )
            settled = await self._settle(claimed, outcome, following, lease_ends)
            if settled:
                self._counts[claimed.channel, type(outcome).__name__.lower()] += 1
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
            del self._in_flight[claimed.lease_token]
            self._wake.set()

    async def _send(self, claimed: Claimed, lease_ends: float) -> policy.Outcome:
        channel = self._channels.get(claimed.channel)
        if channel is None:
            return policy.Deferred(why=f"there is no channel {claimed.channel!r}")
        try:
            if self._vault is not None and self._links is not None:
                claimed = linked(unsealed(claimed, self._vault), self._links)
                if claimed.contact is not None:
                    claimed = replace(claimed, contact=self._vault.open(claimed.contact))
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
                async with db.acquire(self._pool) as conn, conn.transaction():
                    return await outbox.settle(conn, claimed, outcome, following)
            except (db.DatabaseUnavailable, asyncpg.DeadlockDetectedError) as error:
                pause_s = trouble.seen(error)
                if time.monotonic() + pause_s >= lease_ends:
                    return False
                await asyncio.sleep(pause_s)

    async def _live(self, dsn: str) -> None:
        """Hold a session whose lock says that we live, under a new id whenever it was lost.

        On the same session: hear NOTIFY (a missed one costs `idle_s` at most), free what dead
        workers held, and write the counters.
        """
        trouble = _Trouble()
        while True:
            closed = asyncio.Event()
            try:
                conn = await db.connect(dsn)
                try:
                    conn.add_termination_listener(lambda _, closed=closed: self._lost(closed))
                    with db.translate():
                        await conn.add_listener(liveness.WAKE_UP, lambda *_: self._wake.set())
                        self._id = await liveness.enlist(conn, self._random_id)
                        self._wake.set()
                        trouble.over()
                        # Waits first: in an outage others have lost their session too, and are
                        # given the time to settle.
                        while not await wait(closed, self._pace.orphans_s):
                            await self._tick(conn)
                finally:
                    self._lost(closed)
                    conn.terminate()
            except db.DatabaseUnavailable as error:
                trouble.seen(error)
            except Exception as error:
                log.exception("session_failed")
                trouble.seen(error)
            await asyncio.sleep(self._jitter() + BREATH_S)

    def _lost(self, closed: asyncio.Event) -> None:
        self._id = None
        closed.set()

    async def _tick(self, conn: asyncpg.Connection) -> None:
        orphans = await liveness.free_orphans(conn)
        if orphans:
            log.warning("orphans_freed", count=orphans)
            self._wake.set()
        await self._write_counts(conn)

    async def _write_counts(self, conn: asyncpg.Connection) -> None:
        if self._counts:
            counts, self._counts = self._counts, Counter()
            await liveness.count_attempts(conn, counts)

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
