"""A channel that takes everything and sends nothing, for rehearsals and load tests."""

from __future__ import annotations

from api.delivery.outbox import Claimed
from api.delivery.policy import Delivered, Outcome


class Blackhole:
    """Accepts and drops."""

    async def send(self, claimed: Claimed) -> Outcome:  # noqa: ARG002 - that is its point
        """Say that it was delivered."""
        return Delivered()
