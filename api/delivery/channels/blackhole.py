"""A channel that takes everything and sends nothing: for rehearsals, load tests and dry runs."""

from __future__ import annotations

from api.delivery.outbox import Claimed
from api.delivery.policy import Delivered, Outcome
from api.store.probes import Probe


class Blackhole:
    """Accepts and drops; `why` opens the attempt's record."""

    def __init__(self, why: str = "blackhole") -> None:
        self._answer = f"{why}: nothing was sent"

    async def send(self, claimed: Claimed) -> Outcome:  # noqa: ARG002 - that is its point
        """Say that it was delivered, and that nothing was sent."""
        return Delivered(answer=self._answer, nothing_sent=True)

    async def probe(self, probe: Probe) -> Outcome:  # noqa: ARG002 - nor is anything asked
        """Say the same."""
        return Delivered(answer=self._answer, nothing_sent=True)
