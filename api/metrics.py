"""The figures of `/metrics`: read from the database when asked, and kept for a few seconds.

They are of the whole installation, so any one web process may be asked, and a worker needs no port;
but for those of the dataset, which each web process has for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import asyncpg
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api import db
from api.store.metrics import read_metrics

KEPT_S = 5.0
# How each metric of `read_metrics` is called, explained, and labelled
GAUGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "deliveries": ("deliveries", "Deliveries that wait or are being sent.", ("channel", "state")),
    "oldest_waiting": (
        "delivery_oldest_waiting_seconds",
        "Age of the oldest delivery that waits, for whatever reason.",
        ("channel",),
    ),
    "overdue": (
        "delivery_overdue_seconds",
        "How long the most overdue delivery has been due that a worker could take.",
        ("channel",),
    ),
    "endpoints": ("endpoints", "Endpoints that are not deleted.", ("channel", "state")),
    "breakers": ("breakers", "Circuit breakers of active endpoints.", ("channel", "state")),
    "held": ("held_reports", "Reports whose authority has no active endpoint.", ()),
}


class Metrics(Collector):
    """The last figures read; `clock` is a monotonic one, in seconds.

    `dataset` says which version decides here, whether another one should, and how old that
    knowledge is.
    """

    def __init__(
        self,
        pool: asyncpg.Pool,
        *,
        clock: Callable[[], float],
        dataset: Callable[[], tuple[str | None, bool, float]],
    ) -> None:
        self._pool = pool
        self._clock = clock
        self._dataset = dataset
        self._reading = asyncio.Lock()
        self._rows: Sequence[asyncpg.Record] = ()
        self._read_at = float("-inf")
        self._registry = CollectorRegistry()
        self._registry.register(self)

    async def text(self) -> bytes:
        """The figures in Prometheus' text format, `KEPT_S` old at most."""
        async with self._reading:  # however many ask, one reads
            if self._clock() - self._read_at >= KEPT_S:
                async with db.acquire(self._pool) as conn:
                    self._rows = await read_metrics(conn)
                self._read_at = self._clock()
            return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """What the rows say, as Prometheus' client wants it."""
        families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {
            "attempts": CounterMetricFamily(
                "georouter_delivery_attempts",
                "Attempts that came to an end.",
                labels=("channel", "outcome"),
            )
        }
        for metric, (name, text, labels) in GAUGES.items():
            families[metric] = GaugeMetricFamily(f"georouter_{name}", text, labels=labels)
        for row in self._rows:
            given = [value for value in (row["channel"], row["label"]) if value]
            families[row["metric"]].add_metric(given, row["value"])
        yield from families.values()
        version, fault, age_s = self._dataset()
        info = GaugeMetricFamily(
            "georouter_dataset_info",
            "The dataset that decides in this process.",
            labels=["version"],
        )
        if version is not None:
            info.add_metric([version], 1.0)
        yield info
        yield GaugeMetricFamily(
            "georouter_dataset_fault",
            "1 while this process cannot open the dataset that should decide.",
            value=float(fault),
        )
        yield GaugeMetricFamily(
            "georouter_dataset_age_seconds",
            "How long ago this process last heard which dataset should decide.",
            value=age_s,
        )
