"""How what runs beside the worker's claims keeps going: in rounds, until it is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from api import db

log = structlog.get_logger(__name__)


async def rounds(
    step: Callable[[], Awaitable[int]],
    stop: asyncio.Event,
    *,
    batch: int,
    every_s: float,
    trouble: str,
) -> None:
    """Take rounds of at most `batch` until the stop, one after the other while they are full.

    `step` returns how much it did. One that fails is logged as `trouble` and is no end: what it had
    in hand is leased, and is due again when the lease ends.
    """
    while not stop.is_set():
        done = 0
        try:
            done = await step()
        except db.DatabaseUnavailable:
            pass  # the claims of the worker tell of it
        except Exception:
            log.exception(trouble)
        if done < batch:
            await wait(stop, every_s)


async def wait(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for the event, but not longer; whether it came."""
    try:
        async with asyncio.timeout(timeout_s):
            return await event.wait()
    except TimeoutError:
        return False
