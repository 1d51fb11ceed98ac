from __future__ import annotations

import random
from ipaddress import ip_network
from typing import Any

import pytest
from limits import parse
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.rates import Counts, network_of

PUBLIC, OTHER = "81.2.69.160", "81.2.69.161"
TRUSTED = (ip_network("10.0.0.0/8"), ip_network("2001:db8:ffff::/48"))


@pytest.mark.parametrize("seed", range(5))
def test_it_lets_through_what_the_library_does(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(seed)
    now = 1_800_000_000.0 + chance.random() * 100
    monkeypatch.setattr("time.time", lambda: now)
    rate = parse(chance.choice(["10/minute", "3 per 10 second", "60/hour"]))
    oracle, counts = SlidingWindowCounterRateLimiter(MemoryStorage()), Counts()
    seen = set()
    for _ in range(2000):
        now += chance.expovariate(rate.amount / rate.get_expiry() * 1.5)
        mine = counts.quota("x", rate, now=now, limit="x").remaining > 0
        if mine:
            counts.count("x", rate, now=now)
        assert mine == oracle.hit(rate, "x")
        seen.add(mine)
    assert seen == {True, False}


def test_who_waits_as_long_as_they_are_told_gets_through_and_not_much_earlier() -> None:
    chance = random.Random(1)
    rate = parse("20/minute")
    counts, now = Counts(), 1_800_000_000.0
    refused = 0
    for _ in range(500):
        now += chance.random() * 2
        found = counts.quota("x", rate, now=now, limit="x")
        if found.remaining:
            counts.count("x", rate, now=now)
            continue
        refused += 1
        assert 1 <= found.reset_s <= 2 * 60
        assert counts.quota("x", rate, now=now + found.reset_s, limit="x").remaining > 0
        if found.reset_s > 1:
            earlier = counts.quota("x", rate, now=now + found.reset_s - 1.001, limit="x")
            assert earlier.remaining == 0
    assert refused > 50


def scope(peer: str | None, *forwarded: str) -> dict[str, Any]:
    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded]
    return {"client": (peer, 1) if peer else None, "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "found"),
    [
        (PUBLIC, (), PUBLIC),
        (None, (), None),
        ("127.0.0.1", (), None),  # of the installation's own
        ("192.168.1.5", (PUBLIC,), None),  # a proxy that nobody has named
        (PUBLIC, (OTHER,), PUBLIC),  # whoever says so of themselves is not believed
        ("10.1.1.1", (), None),
        ("10.1.1.1", (PUBLIC,), PUBLIC),
        ("10.1.1.1", (f"{OTHER}, {PUBLIC}",), PUBLIC),  # what a client wrote stands to the left
        ("10.1.1.1", (OTHER, PUBLIC), PUBLIC),  # in header lines of their own, too
        ("10.1.1.1", (f"{OTHER}, {PUBLIC}, 10.2.2.2",), PUBLIC),  # two proxies
        ("10.1.1.1", (f"{PUBLIC}, nonsense, 10.2.2.2",), None),
        ("2001:db8:ffff::1", (PUBLIC,), PUBLIC),
        ("2a00:1450:4009:81f::200e", (), "2a00:1450:4009:81f::/64"),
        ("::ffff:81.2.69.160", (), PUBLIC),
        ("not an address", (), None),
    ],
)
def test_whose_request_it_is(peer: str | None, forwarded: tuple[str, ...], found: str) -> None:
    assert network_of(scope(peer, *forwarded), TRUSTED) == found
