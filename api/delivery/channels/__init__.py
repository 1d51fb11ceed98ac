"""The ways to send a delivery, by the name that an endpoint's row carries.

A channel turns one claimed delivery, or one probe, into one outcome. It may raise; the worker takes
that for a failure that passes. It knows neither the queue nor what follows from its outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from api.delivery.channels.blackhole import Blackhole
from api.delivery.channels.mail import Mail
from api.delivery.channels.open311 import Open311
from api.delivery.channels.webhook import Webhook
from api.delivery.egress import Egress
from api.delivery.outbox import Claimed
from api.delivery.policy import Outcome
from api.settings import Settings
from api.store.probes import Probe


class Channel(Protocol):
    """One way to send."""

    async def send(self, claimed: Claimed) -> Outcome:
        """Try to send it once. Called again for the same delivery, it sends the same bytes."""

    async def probe(self, probe: Probe) -> Outcome:
        """Send a challenge or a test, and read the answer: Delivered if it is as it should be."""


NAMES = ("webhook", "open311", "mail", "blackhole")


def channels(
    egress: Egress, clock: Callable[[], float], settings: Settings
) -> Mapping[str, Channel]:
    """The channels by name; `clock` gives Unix seconds. In a dry run all of them send nothing."""
    if settings.dry_run:
        return dict.fromkeys(NAMES, Blackhole("dry run"))
    return {
        "webhook": Webhook(egress, clock),
        "open311": Open311(egress, clock),
        "mail": Mail(settings),
        "blackhole": Blackhole(),
    }
