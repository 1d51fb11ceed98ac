"""The rounds beside the worker: when they follow each other, and that nothing ends them early."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from api import db
from api.delivery.pacing import rounds, wait

FOREVER_S = 3600.0


async def test_rounds_follow_each_other_while_they_are_full() -> None:
    stop = asyncio.Event()
    left = [3, 5, 5]

    async def step() -> int:
        done = left.pop()
        if not left:
            stop.set()  # else it would wait for an hour now
        return done

    await rounds(step, stop, batch=5, every_s=FOREVER_S, trouble="failed")
    assert left == []


@pytest.mark.parametrize(
    ("error", "told"), [(db.DatabaseUnavailable("away"), []), (KeyError("text"), ["step_failed"])]
)
async def test_a_round_that_fails_is_no_end(error: Exception, told: list[str]) -> None:
    stop = asyncio.Event()
    times = 0

    async def step() -> int:
        nonlocal times
        times += 1
        if times == 1:
            raise error
        stop.set()
        return 0

    with capture_logs() as lines:
        await rounds(step, stop, batch=5, every_s=0.0, trouble="step_failed")
    assert times == 2
    assert [line["event"] for line in lines] == told


async def test_a_wait_ends_with_the_event_or_with_its_time() -> None:
    event = asyncio.Event()
    assert await wait(event, 0.0) is False
    event.set()
    assert await wait(event, FOREVER_S) is True
