"""The contract that every channel keeps, whatever the other side does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any, Protocol

import asyncpg
import pytest

from api import db
from api.delivery import outbox
from api.delivery.channels import NAMES, Channel, channels
from api.delivery.egress import Egress
from api.delivery.outbox import Claimed
from api.delivery.policy import ANSWER_BYTES, Deferred, Delivered, Outcome, Rejected
from api.settings import Settings
from api.store.probes import Probe
from tests.support import rows
from tests.support.stub_authority import Answer, Received, StubAuthority
from tests.support.stub_mail import StubMail

API_KEY = "an api/key+of theirs"
PASSWORD = "the-password-of-our-mail-server"
LONG = "x" * 100_000
TIMEOUT_S = 1.0


class Peer(Protocol):
    """The other side of a channel."""

    url: str
    secret: str
    config: dict[str, Any]

    def behave(self, how: str) -> None: ...

    def identities(self) -> list[str]: ...


@dataclass
class Http:
    """An HTTP server that takes reports at `path`."""

    stub: StubAuthority
    path: str
    body: bytes
    secret: str
    config: dict[str, Any] = field(default_factory=dict)
    base: str = "/intake"

    @property
    def url(self) -> str:
        return self.stub.url(self.base)

    def behave(self, how: str) -> None:
        async def echo(request: Received, writer: asyncio.StreamWriter) -> None:
            said = request.body + repr(request.headers).encode()
            head = f"HTTP/1.1 400 X\r\nconnection: close\r\ncontent-length: {len(said)}\r\n\r\n"
            writer.write(head.encode() + said)

        answers = {
            "take": Answer(200, self.body),
            "busy": Answer(503, b"later"),
            "refuse": Answer(400, b"no"),
            "hang": Answer(delay_s=60),
            "drip": Answer(200, b"x" * 1000, drip_s=0.2),
            "cut": Answer(cut=True),
            "long": Answer(500, LONG.encode()),
            "echo": echo,
        }
        self.stub.echoes = False
        for path in (self.path, f"{self.base}/services.json"):
            self.stub.answer(path, answers[how])

    def identities(self) -> list[str]:
        # of the webhook its id and of open311 the report's id in the text, and the very bytes
        return [
            f"{one.headers.get('webhook-id')} {one.headers.get('idempotency-key')} {one.body!r}"
            for one in self.stub.received
        ]


@dataclass
class Smtp:
    stub: StubMail
    url: str = "mailto:highways@council.example"
    secret: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def behave(self, how: str) -> None:
        self.stub.behave = how
        # The reply to DATA is one line, and a line of SMTP is short.
        self.stub.said = {"long": "x" * 480, "echo": "no"}.get(how, "")
        if how == "drip":
            self.stub.behave = "hang"
        if how in ("long", "echo"):
            self.stub.behave = "refuse"

    def identities(self) -> list[str]:
        ids = [str(one["Message-ID"]) for one in self.stub.messages()]
        return [f"{one} {raw!r}" for one, raw in zip(ids, self.stub.received, strict=True)]


@dataclass
class Nobody:
    """What the blackhole talks to."""

    url: str = "blackhole:"
    secret: str = ""
    config: dict[str, Any] = field(default_factory=dict)

    def behave(self, how: str) -> None: ...

    def identities(self) -> list[str]:
        return ["nothing", "nothing"]


@asynccontextmanager
async def peer_of(name: str) -> AsyncIterator[tuple[Peer, int]]:
    """The other side of a channel, and the port of our mail server."""
    async with StubAuthority() as http, StubMail(password=None) as mail:
        peers: dict[str, Peer] = {
            "webhook": Http(http, "/intake", b'{"reference": "A-1"}', rows.SECRET),
            "open311": Http(
                http,
                "/v2/requests.json",
                b'[{"service_request_id": "A-1"}]',
                API_KEY,
                {"services": {"pothole": "POT"}},
                base="/v2",
            ),
            "mail": Smtp(mail),
            "blackhole": Nobody(),
        }
        yield peers[name], mail.port


def settings_for(port: int, **more: Any) -> Settings:
    return Settings(
        delivery_mode="live",
        delivery_timeout_s=TIMEOUT_S,
        smtp_host="127.0.0.1",
        smtp_port=port,
        smtp_tls="none",
        smtp_from="georouter@georouter.example",
        **more,
    )


@asynccontextmanager
async def ready(pool: asyncpg.Pool, name: str) -> AsyncIterator[tuple[Channel, Peer, Claimed]]:
    async with (
        peer_of(name) as (peer, port),
        Egress(allow=[ip_network("127.0.0.0/8")], timeout_s=TIMEOUT_S) as egress,
    ):
        by_name = channels(egress, time.time, settings_for(port))
        assert tuple(by_name) == NAMES
        async with db.acquire(pool) as conn:
            authority_id = await rows.authority(conn)
            endpoint_id = await rows.endpoint(
                conn,
                authority_id,
                url=peer.url,
                channel=name,
                secret=peer.secret,
                config=peer.config,
            )
            await rows.delivery(conn, authority_id, endpoint_id)
            [claimed] = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
        assert not claimed.unsure
        yield by_name[name], peer, claimed


def texts(outcome: Outcome) -> str:
    return f"{outcome.answer} {getattr(outcome, 'why', '')} {outcome!r}"


@pytest.mark.parametrize("name", NAMES)
async def test_the_same_delivery_twice_has_the_same_identity(pool: asyncpg.Pool, name: str) -> None:
    async with ready(pool, name) as (channel, peer, claimed):
        peer.behave("take")
        first, second = await channel.send(claimed), await channel.send(claimed)
        assert isinstance(first, Delivered)
        assert isinstance(second, Delivered)
        assert first.nothing_sent == (name == "blackhole")
        one, other = peer.identities()
        assert one == other


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("busy", Deferred),
        ("refuse", Rejected),
        ("hang", Deferred),
        ("drip", Deferred),
        ("cut", Deferred),
    ],
)
async def test_every_failure_has_an_outcome_in_time(
    pool: asyncpg.Pool, name: str, how: str, expected: type[Outcome]
) -> None:
    async with ready(pool, name) as (channel, peer, claimed):
        peer.behave(how)
        # Far longer than it may take, and far shorter than the peer would
        async with asyncio.timeout(20):
            outcome = await channel.send(claimed)
        assert isinstance(outcome, Delivered if name == "blackhole" else expected)


@pytest.mark.parametrize("name", ["webhook", "open311", "mail"])
async def test_nobody_there_is_deferred(pool: asyncpg.Pool, name: str) -> None:
    async with (
        ready(pool, name) as (_, _, claimed),
        Egress(allow=[ip_network("127.0.0.0/8")], timeout_s=TIMEOUT_S) as egress,
    ):
        channel = channels(egress, time.time, settings_for(9))[name]
        for url in ("http://127.0.0.1:9/x", "http://no-such-host.invalid/x"):
            address = claimed.url if name == "mail" else url
            outcome = await channel.send(replace(claimed, url=address))
            assert isinstance(outcome, Deferred)
            assert not outcome.unsure


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["long", "echo"])
async def test_little_is_kept_and_no_secret(pool: asyncpg.Pool, name: str, how: str) -> None:
    async with ready(pool, name) as (channel, peer, claimed):
        peer.behave(how)
        outcome = await channel.send(claimed)
        assert len((outcome.answer or "").encode()) <= ANSWER_BYTES
        for secret in (API_KEY, "an+api%2Fkey%2Bof+theirs", rows.SECRET, PASSWORD):
            assert secret not in texts(outcome)
            assert secret not in repr(claimed)


@pytest.mark.parametrize("name", ["webhook", "open311", "mail"])
@pytest.mark.parametrize("how", ["busy", "refuse", "hang", "cut", "long", "echo"])
async def test_a_probe_fails_in_time_and_keeps_no_secret(
    pool: asyncpg.Pool, name: str, how: str
) -> None:
    async with ready(pool, name) as (channel, peer, claimed):
        peer.behave(how)
        probe = Probe(
            id=claimed.delivery_id,
            kind="challenge",
            text="K5XW2Z3DPFQW64TM",
            attempt=1,
            asked_at=rows.RECEIVED_AT,
            endpoint_id=claimed.endpoint_id,
            authority_id=claimed.authority_id,
            authority_name="Dogger\r\nBcc: all@example.org",
            channel=name,
            url=claimed.url,
            secret=claimed.secret,
            config=claimed.config,
        )
        async with asyncio.timeout(20):
            outcome = await channel.probe(probe)
        assert not isinstance(outcome, Delivered)
        for secret in (API_KEY, "an+api%2Fkey%2Bof+theirs", rows.SECRET, PASSWORD, probe.text):
            assert secret not in texts(outcome)
            assert secret not in repr(probe)


async def test_a_dry_run_sends_nothing_by_any_channel(pool: asyncpg.Pool) -> None:
    async with StubAuthority() as stub, Egress(timeout_s=TIMEOUT_S) as egress:
        by_name = channels(egress, time.time, Settings())
        assert tuple(by_name) == NAMES
        async with db.acquire(pool) as conn:
            authority_id = await rows.authority(conn)
            endpoint_id = await rows.endpoint(conn, authority_id, url=stub.url())
            await rows.delivery(conn, authority_id, endpoint_id)
            [claimed] = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
        for channel in by_name.values():
            outcome = await channel.send(claimed)
            assert outcome == Delivered(answer="dry run: nothing was sent", nothing_sent=True)
        assert stub.received == []
