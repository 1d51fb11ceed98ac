"""Sends the challenges that make endpoints active, and the tests that their owners ask for.

It promises that no endpoint is active that did not answer as only its owner can, that an answer to
an earlier challenge changes nothing, and that no connection of the database is held while an
endpoint answers. A probe whose worker died is sent again when the lease ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

import asyncpg
import structlog

from api import db
from api.delivery import policy
from api.delivery.channels import Channel
from api.delivery.outbox import Claimed
from api.delivery.pacing import rounds
from api.store import endpoints, probes
from api.store.probes import Probe
from api.vault import SecretUnreadable, Vault

log = structlog.get_logger(__name__)

BATCH = 50
# The longest wait after each try but the last: five of them, over some ten minutes on average
SCHEDULE_S: Mapping[probes.Kind, tuple[float, ...]] = {
    "challenge": (20.0, 120.0, 360.0, 700.0),
    "test": (),
}

Sealed = TypeVar("Sealed", Claimed, Probe)


def unsealed(message: Sealed, vault: Vault) -> Sealed:
    """The same with secrets that can be used. Raises `SecretUnreadable`."""
    old = vault.open(message.old_secret) if message.old_secret else None
    return replace(message, secret=vault.open(message.secret), old_secret=old)


class Verifier:
    """The loop, beside a worker's. `jitter` in [0, 1) spreads the waits between tries."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        by_name: Mapping[str, Channel],
        vault: Vault,
        stop: asyncio.Event,
        jitter: Callable[[], float],
        *,
        lease_s: float,
        every_s: float,
    ) -> None:
        self._pool = pool
        self._channels = by_name
        self._vault = vault
        self._stop = stop
        self._jitter = jitter
        self._lease_s = lease_s
        self._every_s = every_s

    async def run(self) -> None:
        """Send what is due until the stop."""
        await rounds(
            self.round,
            self._stop,
            batch=BATCH,
            every_s=self._every_s,
            trouble="verification_failed",
        )

    async def round(self) -> int:
        """Send what is due, at most `BATCH`; how many that were."""
        async with db.acquire(self._pool) as conn:
            await endpoints.forget_old_secrets(conn)
            started = time.monotonic()
            due = await probes.claim(conn, limit=BATCH, lease_s=self._lease_s)
        async with asyncio.TaskGroup() as tasks:
            for probe in due:
                tasks.create_task(self._try(probe, started + self._lease_s))
        return len(due)

    async def _try(self, probe: Probe, until: float) -> None:
        try:
            answer = await self._send(probe, until)
            outcome, delay_s = after(probe, answer, jitter=self._jitter())
            async with db.acquire(self._pool) as conn, conn.transaction():
                settled = await probes.settle(
                    conn,
                    probe,
                    outcome=outcome,
                    delay_s=delay_s,
                    status=answer.status,
                    error=None if isinstance(answer, policy.Delivered) else answer.why,
                )
        except Exception:
            log.exception("probe_failed", endpoint=str(probe.endpoint_id))
            return
        log.info(
            "probe_sent" if settled else "probe_too_late",
            endpoint=str(probe.endpoint_id),
            kind=probe.kind,
            attempt=probe.attempt,
            outcome=outcome,
            status=answer.status,
        )

    async def _send(self, probe: Probe, until: float) -> policy.Outcome:
        channel = self._channels.get(probe.channel)
        if channel is None:
            return policy.Deferred(why=f"there is no channel {probe.channel!r}")
        try:
            # A channel bounds its own time; this is for one that fails to.
            async with asyncio.timeout(until - time.monotonic()):
                return await channel.probe(unsealed(probe, self._vault))
        except SecretUnreadable as error:
            return policy.Deferred(why=str(error))
        except Exception as error:
            # Only the class goes into the record that the authority can read.
            log.exception("channel_failed", endpoint=str(probe.endpoint_id))
            return policy.Deferred(why=type(error).__name__)


def after(
    probe: Probe, answer: policy.Outcome, *, jitter: float
) -> tuple[Literal["passed", "failed"] | None, float | None]:
    """What a probe has come to by an answer, if to anything, and how long until the next try."""
    if isinstance(answer, policy.Delivered):
        # A mail that was handed over proves nothing: the code in it must come back.
        waits = probe.channel == "mail" and probe.kind == "challenge"
        return (None if waits else "passed"), None
    waits_s = SCHEDULE_S[probe.kind]
    if probe.attempt > len(waits_s):
        return "failed", None
    return None, jitter * waits_s[probe.attempt - 1]
