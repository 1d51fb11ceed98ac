"""How often may somebody ask? Limits for each API key and each client address, over all processes.

A sliding window, counted in this process and added up in the database every half second, so that no
request waits for it. What other processes let through is known a moment later: a burst within that
moment can reach the limit in each of them, and no more comes through than that. Without a database
each process limits by itself. Addresses are counted as keyed hashes of the network.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Final

import asyncpg
import structlog
from limits import RateLimitItem, parse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import db, errors
from api.settings import OFF, Settings
from api.store import rates
from api.vault import Vault

MERGE_EVERY_S: Final = 0.5
CLEAN_EVERY_S: Final = 60.0
# Of counts that are remembered; beyond it the database is asked anew.
MOST_KNOWN: Final = 200_000
# Of networks whose hash is kept at hand
MOST_HASHES: Final = 10_000
# Where in a request's scope the keyed hash of its network is found
CLIENT: Final = "georouter.client"
LIMITED: Final = "/v1/"
REPORTS: Final = frozenset({("POST", "/v1/reports"), ("POST", "/v1/reports:batch")})

log = structlog.get_logger()

Networks = Sequence[IPv4Network | IPv6Network]
Window = tuple[str, int]
"""Which limit and whose, and the number of the window since 1970."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of one limit."""

    limit: str
    amount: int
    window_s: int
    remaining: int
    reset_s: int  # of one that is used up: until there is something again


class Counts:
    """Who has asked how often, by this process and, as of the last merge, by the others."""

    def __init__(self) -> None:
        self._known: dict[Window, int] = {}
        self._ends: dict[Window, int] = {}
        self._sending: Counter[Window] = Counter()
        self._mine: Counter[Window] = Counter()

    def quota(self, name: str, rate: RateLimitItem, *, now: float, limit: str) -> Quota:
        """What is left, were nothing counted now."""
        window_s = rate.get_expiry()
        n, into_s = divmod(now, window_s)
        before, current = self._of((name, int(n) - 1)), self._of((name, int(n)))
        left = 1 - into_s / window_s
        weighted = before * left + current
        if weighted < rate.amount:
            reset_s = window_s - into_s
        elif current < rate.amount:
            reset_s = window_s * (left - (rate.amount - current) / before)
        else:
            reset_s = window_s - into_s + window_s * (1 - rate.amount / current)
        remaining = max(0, rate.amount - int(weighted))
        return Quota(limit, rate.amount, window_s, remaining, int(reset_s) + 1)

    def count(self, name: str, rate: RateLimitItem, *, now: float, hits: int = 1) -> None:
        """Count a request, or so many."""
        window_s = rate.get_expiry()
        window = (name, int(now // window_s))
        self._mine[window] += hits
        # Its successor still weighs it.
        self._ends[window] = (window[1] + 2) * window_s

    def _of(self, window: Window) -> int:
        return self._known.get(window, 0) + self._sending[window] + self._mine[window]

    async def merge(self, pool: asyncpg.Pool, *, now: float) -> None:
        """Add what this process has counted, and learn what all have. Raises `DatabaseUnavailable`.

        What may not have been added is added again, never forgotten.
        """
        for window in [one for one, end in self._ends.items() if end <= now]:
            for counts in (self._ends, self._known, self._mine):
                counts.pop(window, None)
        self._sending, self._mine = self._mine, Counter()
        try:
            async with db.acquire(pool) as conn:
                totals = await rates.add_counts(
                    conn, [(name, n, hits, self._ends[name, n]) for (name, n), hits in self._sent()]
                )
        except BaseException:
            self._mine.update(self._sending)
            self._sending = Counter()
            raise
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._sending = Counter()
        for row in totals:
            self._known[row["name"], row["n"]] = row["hits"]
            self._ends[row["name"], row["n"]] = int(row["ends"])

    def _sent(self) -> Sequence[tuple[Window, int]]:
        # In one order, so that processes do not wait for each other in a circle
        return sorted(self._sending.items())

    @property
    def waiting(self) -> bool:
        """Whether there is something to merge."""
        return bool(self._mine)


@dataclass
class Rates:
    """The limits of one web process. `clock` gives Unix seconds, alike in all of them."""

    limits: Mapping[str, RateLimitItem]
    trusted: Networks
    vault: Vault
    clock: Callable[[], float]
    counts: Counts = field(default_factory=Counts)
    exempt: frozenset[str] = frozenset()  # digests of the keys without a limit by address
    hashes: dict[str, str] = field(default_factory=dict)  # of networks that asked lately

    @classmethod
    def of(cls, settings: Settings, *, vault: Vault, clock: Callable[[], float]) -> Rates:
        """The limits of the settings."""
        given = {
            "key": settings.rate_key,
            "address": settings.rate_address,
            "reports": settings.rate_reports,
        }
        limits = {name: parse(rate) for name, rate in given.items() if rate != OFF}
        return cls(limits, settings.trusted_proxies, vault, clock)

    def client(self, scope: Scope) -> str | None:
        """The keyed hash of the network that a request comes from; None if it is not known."""
        network = network_of(scope, self.trusted)
        if network is None:
            return None
        if network not in self.hashes:
            if len(self.hashes) >= MOST_HASHES:
                self.hashes.clear()
            self.hashes[network] = self.vault.sign(network, purpose="client address")
        return self.hashes[network]

    def take(self, scope: Scope) -> tuple[list[Quota], Quota | None]:
        """What is left of each limit on this request, and the one that refuses it, if one does.

        A refused request counts for nothing.
        """
        now = self.clock()
        found = []
        for limit, whose in self._on(scope):
            rate, name = self.limits[limit], f"{limit}:{whose}"
            found.append((name, rate, self.counts.quota(name, rate, now=now, limit=limit)))
        quotas = [quota for _, _, quota in found]
        spent = [quota for quota in quotas if not quota.remaining]
        if spent:
            return quotas, max(spent, key=lambda one: one.reset_s)
        for name, rate, _ in found:
            self.counts.count(name, rate, now=now)
        return [
            Quota(one.limit, one.amount, one.window_s, one.remaining - 1, one.reset_s)
            for one in quotas
        ], None

    def charge(self, scope: Scope, *, more: int) -> None:
        """Count the posts of a batch beyond the first; those are taken, the next are not."""
        client = scope.get(CLIENT)
        if more > 0 and ("reports", client) in self._on(scope):
            rate = self.limits["reports"]
            self.counts.count(f"reports:{client}", rate, now=self.clock(), hits=more)

    def _on(self, scope: Scope) -> Sequence[tuple[str, str]]:
        """Which limits a request is under, and as whose."""
        names = []
        _, _, secret = Headers(scope=scope).get("authorization", "").partition(" ")
        digest = hashlib.sha256(secret.strip().encode("latin-1")).hexdigest() if secret else None
        if digest is not None:
            names.append(("key", digest))
        client = scope.get(CLIENT)
        if client is not None and digest not in self.exempt:
            names.append(("address", client))
            if (scope["method"], scope["path"]) in REPORTS:
                names.append(("reports", client))
        return [(limit, whose) for limit, whose in names if limit in self.limits]

    async def refresh(self, pool: asyncpg.Pool) -> None:
        """Merge the counts, and learn which keys are exempt. Raises `DatabaseUnavailable`."""
        await self.counts.merge(pool, now=self.clock())
        async with db.acquire(pool) as conn:
            self.exempt = frozenset(await rates.list_exempt(conn))

    async def run(self, pool: asyncpg.Pool, *, every_s: float = MERGE_EVERY_S) -> None:
        """Refresh for ever, while there is something to tell; clean up once a minute."""
        clean_at = self.clock()
        fresh = False
        while True:
            try:
                if self.counts.waiting or not fresh:
                    await self.refresh(pool)
                    fresh = True
                if self.clock() >= clean_at:
                    clean_at = self.clock() + CLEAN_EVERY_S
                    async with db.acquire(pool) as conn:
                        await rates.remove_expired(conn)
            except db.DatabaseUnavailable:
                pass  # requests tell of it; until it is back this process limits by itself
            except Exception:
                # A loop that ended would leave every process to itself without a sign.
                log.exception("rates_failed")
            await asyncio.sleep(every_s)


def network_of(scope: Scope, trusted: Networks) -> str | None:
    """The network behind a request: an IPv4 address, or the /64 of an IPv6 one.

    Behind proxies that are trusted, the right-most address of X-Forwarded-For that is none of them.
    None if there is no telling, and for an address that is not public: that is a machine of the
    installation's own, or a proxy that nobody has named, behind which all would be one.
    """
    client = scope.get("client")
    address = _read(client[0]) if client else None
    hops = ",".join(Headers(scope=scope).getlist("x-forwarded-for")).split(",")
    while address is not None and hops and any(address in one for one in trusted):
        before = _read(hops.pop().strip())
        if before is None:
            break
        address = before
    if address is None or not address.is_global:
        return None
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address)


def _read(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


class RateLimit:
    """ASGI middleware: refuses what comes too often, and says on every answer what is left.

    By the header fields `RateLimit-Policy` and `RateLimit` of the IETF's draft.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(LIMITED):
            await self.app(scope, receive, send)
            return
        mine: Rates = scope["app"].state.wiring.rates
        scope[CLIENT] = mine.client(scope)
        quotas, spent = mine.take(scope)
        fields = {
            "RateLimit-Policy": ", ".join(
                f'"{one.limit}";q={one.amount};w={one.window_s}' for one in quotas
            ),
            "RateLimit": ", ".join(
                f'"{one.limit}";r={one.remaining};t={one.reset_s}' for one in quotas
            ),
        }

        async def send_with_fields(message: Message) -> None:
            if message["type"] == "http.response.start" and quotas:
                MutableHeaders(scope=message).update(fields)
            await send(message)

        if spent is not None:
            refusal = errors.TooManyRequests(
                f"there were {spent.amount} requests in {spent.window_s} seconds; send the same "
                f"request again in {spent.reset_s} seconds",
                retry_after_s=spent.reset_s,
            )
            await errors.respond(scope, refusal)(scope, receive, send_with_fields)
            return
        await self.app(scope, receive, send_with_fields)
