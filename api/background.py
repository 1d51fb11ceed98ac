"""The worker process: sends what is owed, and routes again what has changed hands.

Its two halves share nothing but the database; any number of such processes run beside each other.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

from api import db, rerouting
from api.artefacts import Artefacts
from api.delivery.worker import run_worker
from api.routing import LiveRouting, OpenVersion, load_rules
from api.settings import Settings


async def run_background(
    settings: Settings,
    *,
    stop: asyncio.Event | None = None,
    clock: Callable[[], float] = time.time,
    open_version: OpenVersion | None = None,
) -> None:
    """Work until `stop` is set, then finish what is in flight.

    Without `stop`, SIGTERM and SIGINT set one. Raises `RulesError`, `DatasetError` for the store's
    URL, and as `run_worker` does.
    """
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    opener = open_version or Artefacts.of(settings).open
    live = LiveRouting(rules=load_rules(settings.rules), clock=clock, open_version=opener)
    dsn = await asyncio.to_thread(db.resolve_dsn, settings)
    failed: Exception | None = None
    async with asyncio.TaskGroup() as tasks:
        again = tasks.create_task(_reroute(settings, dsn, live))
        try:
            await run_worker(settings, stop=stop, clock=clock)
        except Exception as error:  # noqa: BLE001 - raised below, outside of a group
            failed = error
        again.cancel()
    if failed is not None:
        raise failed


async def _reroute(settings: Settings, dsn: str, live: LiveRouting) -> None:
    """Reroute for ever, on a pool of its own, from when there is a database."""
    while True:
        try:
            pool = await db.create_pool(dsn, size=2)
        except db.DatabaseUnavailable:  # the worker tells of it
            await asyncio.sleep(settings.dataset_poll_s)
            continue
        async with pool:
            await rerouting.run(pool, live, every_s=settings.dataset_poll_s)
