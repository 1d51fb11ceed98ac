"""The worker process: sends what is owed, routes again what has changed hands, removes old uploads.

Its parts share nothing but the database; any number of such processes run beside each other.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path

from api import db, photos, rerouting
from api.delivery.worker import run_worker
from api.objects import Objects, open_objects
from api.routing import LiveRouting, load_rules
from api.settings import Settings
from boundaries.dataset import Dataset, open_dataset


async def run_background(
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.time,
    open_folder: Callable[[Path], Dataset] = open_dataset,
) -> None:
    """Work until `stop` is set, then finish what is in flight.

    Without `stop`, SIGTERM and SIGINT set one. Raises `RulesError`, `ObjectStoreUnusable`,
    and as `run_worker` does.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    live = LiveRouting(rules=load_rules(settings.rules), clock=clock, open_folder=open_folder)
    objects = await asyncio.to_thread(open_objects, settings)
    dsn = await asyncio.to_thread(db.resolve_dsn, settings)
    failed: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        again = tasks.create_task(_beside(settings, dsn, live, objects))
        try:
            await run_worker(settings, stop=stop, clock=clock)
        except Exception as error:  # noqa: BLE001 - raised below, outside of a group
            failed = error
        again.cancel()
    if failed is not None:
        raise failed


async def _beside(settings: Settings, dsn: str, live: LiveRouting, objects: Objects) -> None:
    """Reroute and sweep for ever, on a pool of their own, from when there is a database."""
    while True:
        try:
            pool = await db.create_pool(dsn, size=2)
        except db.DatabaseUnavailable:  # the worker tells of it
            await asyncio.sleep(settings.dataset_poll_s)
            continue
        async with pool, asyncio.TaskGroup() as tasks:
            tasks.create_task(rerouting.run(pool, live, every_s=settings.dataset_poll_s))
            tasks.create_task(photos.run_sweeps(pool, objects))
