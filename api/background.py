"""The worker process: sends what is owed, and does what else goes on beside the requests.

That is: to route again what has changed hands, to note attempts, to remove what is left of uploads.
Its parts share nothing but the database; any number of such processes run beside each other.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import asyncpg
import structlog

from api import db, mailing, photos, privacy, rerouting
from api.artefacts import Artefacts
from api.delivery.worker import run_worker
from api.objects import Objects, open_objects
from api.routing import LiveRouting, OpenVersion, load_rules
from api.settings import Settings
from api.store import evidence
from api.vault import open_vault

log = structlog.get_logger()


async def run_background(
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.time,
    open_version: OpenVersion | None = None,
    log_every_s: float = 1.0,
    mail_every_s: float = 5.0,
) -> None:
    """Work until `stop` is set, then finish what is in flight.

    Without `stop`, SIGTERM and SIGINT set one. Raises `RulesError`, `DatasetError` for the store's
    URL, `ObjectStoreUnusable`, and as `run_worker` does.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    opener = open_version or Artefacts.of(settings).open
    live = LiveRouting(rules=load_rules(settings.rules), clock=clock, open_version=opener)
    objects = await asyncio.to_thread(open_objects, settings)
    dsn = await asyncio.to_thread(db.resolve_dsn, settings)
    failed: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        works = [
            _rerouting(settings, live),
            _noting(log_every_s),
            _sweeping(objects),
            _purging(settings),
        ]
        if settings.mails_followers:
            works.append(_mailing(settings, mail_every_s))
        beside = tasks.create_task(_beside(settings, dsn, works))
        try:
            await run_worker(settings, stop=stop, clock=clock)
        except Exception as error:  # noqa: BLE001 - raised below, outside of a group
            failed = error
        beside.cancel()
    if failed is not None:
        raise failed


Work = Callable[[asyncpg.Pool], Coroutine[Any, Any, None]]


async def _beside(settings: Settings, dsn: str, works: Sequence[Work]) -> None:
    """Do these works for ever, on a small pool of their own, from when there is a database."""
    while True:
        try:
            pool = await db.create_pool(dsn, size=3)
        except db.DatabaseUnavailable:  # the worker tells of it
            await asyncio.sleep(settings.dataset_poll_s)
            continue
        async with pool, asyncio.TaskGroup() as tasks:
            for work in works:
                tasks.create_task(work(pool))


def _rerouting(settings: Settings, live: LiveRouting) -> Work:
    return lambda pool: rerouting.run(pool, live, every_s=settings.dataset_poll_s)


def _mailing(settings: Settings, every_s: float) -> Work:
    async def work(pool: asyncpg.Pool) -> None:
        vault = await asyncio.to_thread(open_vault, settings)
        await mailing.run(pool, settings, vault, jitter=random.random, every_s=every_s)

    return work


def _noting(every_s: float) -> Work:
    """Make events of attempts that have ended, for ever, a batch at a time."""

    async def work(pool: asyncpg.Pool) -> None:
        while True:
            pause_s = every_s
            try:
                async with db.acquire(pool) as conn:
                    if await evidence.log_attempts(conn) >= evidence.BATCH:
                        pause_s = 0.0
            except db.DatabaseUnavailable:
                pass  # the worker tells of it; nothing is lost
            except Exception:
                # A loop that ended would leave attempts out of the log without a sign.
                log.exception("noting attempts failed")
            await asyncio.sleep(pause_s)

    return work


def _sweeping(objects: Objects) -> Work:
    return lambda pool: photos.run_sweeps(pool, objects)


def _purging(settings: Settings) -> Work:
    return lambda pool: privacy.run_purges(pool, privacy.retention_of(settings))
