"""Every row of the delivery policy, between a real worker process and a real back office.

The stub is told to misbehave; what is looked at is what a council and an operator can see: states,
attempts and what they say, notices. Waits of minutes are not waited for: the test makes the
delivery due by hand, as time would.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks.webhooks import Webhook

from api import db
from api.delivery import liveness, policy
from api.delivery.egress import MAX_ANSWER_BYTES
from scripts.demo import georouter_process
from tests.support import rows
from tests.support.app import KEY
from tests.support.stub_authority import (
    OK,
    Answer,
    Flood,
    Respond,
    StubAuthority,
    break_off,
    say_nothing,
)

TIMEOUT_S = 2
# of each test, which owes it something to send
pytestmark = pytest.mark.usefixtures("worker")
NOT_OURS = b'{"not_ours": true, "responsible": "X"}'


@pytest.fixture
async def stub() -> AsyncIterator[StubAuthority]:
    async with StubAuthority() as stub:
        yield stub


@pytest.fixture
def worker(database_url: str, tmp_path: Path) -> Iterator[None]:
    """`georouter worker` as an operator starts it, whatever comes."""
    environment = {
        "PATH": os.defpath,
        "GEOROUTER_DATABASE_URL": database_url,
        "GEOROUTER_DATA_DIR": str(tmp_path),
        "GEOROUTER_SECRET_KEYS": KEY,
        "GEOROUTER_EGRESS_ALLOW": '["127.0.0.0/8"]',
        "GEOROUTER_DELIVERY_MODE": "live",
        "GEOROUTER_DELIVERY_TIMEOUT_S": str(TIMEOUT_S),
    }
    log = tmp_path / "worker.log"
    with georouter_process("worker", environment, log):
        yield
    assert "Traceback" not in log.read_text()


@dataclass(frozen=True, slots=True)
class Owed:
    """A delivery of a report to an endpoint of its own."""

    pool: asyncpg.Pool
    delivery_id: UUID
    endpoint_id: UUID

    async def attempts(self, count: int) -> list[asyncpg.Record]:
        """All attempts, once so many have come to an end and been settled."""
        async with asyncio.timeout(30):
            while True:
                found: list[asyncpg.Record] = await self.pool.fetch(
                    """
                    SELECT n, finished_at, outcome, status, answer, error, unsure
                    FROM attempt WHERE delivery_id = $1 AND finished_at IS NOT NULL ORDER BY n
                    """,
                    self.delivery_id,
                )
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.02)

    async def row(self) -> asyncpg.Record:
        return await self.pool.fetchrow("SELECT * FROM delivery WHERE id = $1", self.delivery_id)

    async def endpoint(self) -> asyncpg.Record:
        return await self.pool.fetchrow("SELECT * FROM endpoint WHERE id = $1", self.endpoint_id)

    async def make_due(self) -> None:
        """Let the time until the next attempt pass, unless that is being made."""
        await self.pool.execute(
            "UPDATE delivery SET due_at = now() WHERE id = $1 AND state = 'pending'",
            self.delivery_id,
        )
        await self.pool.execute(f"NOTIFY {liveness.WAKE_UP}")


async def owe(pool: asyncpg.Pool, url: str) -> Owed:
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        endpoint_id = await rows.endpoint(conn, authority_id, url=url)
        delivery_id = await rows.delivery(conn, authority_id, endpoint_id)
        await conn.execute(f"NOTIFY {liveness.WAKE_UP}")
    return Owed(pool, delivery_id, endpoint_id)


@dataclass(frozen=True, slots=True)
class Row:
    """What the endpoint does, and what must have come of it after one attempt."""

    name: str
    does: Answer | Respond
    outcome: str
    state: str
    status: int | None
    error: str | None = None
    kept: str | None = None  # of the answer
    reference: str | None = None
    waits_s: tuple[float, float] | None = None  # until the next attempt


FIRST_WAIT = (0.0, policy.SCHEDULE_S[0])
TABLE = [
    Row("ok", OK, "delivered", "delivered", 200, kept=""),
    Row(
        "created",
        Answer(201, b'{"reference": "ABC-123"}'),
        "delivered",
        "delivered",
        201,
        kept='{"reference": "ABC-123"}',
        reference="ABC-123",
    ),
    Row("known", Answer(409, b"have it"), "delivered", "delivered", 409, kept="have it"),
    Row(
        "moved",
        Answer(302, headers={"location": "/elsewhere"}),
        *("rejected", "pending", 302, "answered 302"),
        waits_s=FIRST_WAIT,
    ),
    Row(
        "bad",
        Answer(400, b"what is this"),
        *("rejected", "pending", 400, "answered 400", "what is this"),
        waits_s=FIRST_WAIT,
    ),
    Row("gone", Answer(410, b"closed"), "gone", "dead", 410, "answered 410", "closed"),
    Row("late", Answer(408), "deferred", "pending", 408, "answered 408", waits_s=FIRST_WAIT),
    Row("early", Answer(425), "deferred", "pending", 425, "answered 425", waits_s=FIRST_WAIT),
    Row(
        "busy",
        Answer(429, headers={"retry-after": "7200"}),
        *("deferred", "pending", 429, "answered 429"),
        waits_s=(7200.0, 7200.0),
    ),
    Row(
        "busy-for-a-year",
        Answer(503, headers={"retry-after": "31536000"}),
        *("deferred", "pending", 503, "answered 503"),
        waits_s=(policy.MAX_RETRY_AFTER_S, policy.MAX_RETRY_AFTER_S),
    ),
    Row(
        "broken",
        Answer(500, b"Traceback"),
        *("deferred", "pending", 500, "answered 500", "Traceback"),
        waits_s=FIRST_WAIT,
    ),
    Row(
        "drips",
        Answer(200, b"x" * 100, drip_s=0.3),
        *("deferred", "pending", None, "no complete answer within 2 s"),
        waits_s=FIRST_WAIT,
    ),
    Row(
        "silent",
        say_nothing,
        *("deferred", "pending", None, "no complete answer within 2 s"),
        waits_s=FIRST_WAIT,
    ),
    Row(
        "breaks-off",
        break_off,
        *("deferred", "pending", None, "RemoteProtocolError"),
        waits_s=FIRST_WAIT,
    ),
    Row(
        "loses-the-reply",
        Answer(cut=True),
        *("deferred", "pending", None, "RemoteProtocolError"),
        waits_s=FIRST_WAIT,
    ),
    Row(
        "not-ours",
        Answer(422, NOT_OURS),
        *("not_ours", "cancelled", 422, "says that it is not theirs", NOT_OURS.decode()),
    ),
    Row(
        "not-ours-politely",
        Answer(200, NOT_OURS),
        *("not_ours", "cancelled", 200, "says that it is not theirs", NOT_OURS.decode()),
    ),
]


async def test_every_row_of_the_policy(pool: asyncpg.Pool, stub: StubAuthority) -> None:
    owed = {}
    for row in TABLE:
        stub.answer(f"/{row.name}", row.does)
        owed[row.name] = await owe(pool, stub.url(f"/{row.name}"))
    for row in TABLE:
        [attempt, *_] = await owed[row.name].attempts(1)
        delivery = await owed[row.name].row()
        # A wait that jitter made short may be over already.
        if delivery["attempts"] == 1:
            told = (attempt["outcome"], delivery["state"], attempt["status"])
            assert told == (row.outcome, row.state, row.status), row.name
            assert delivery["reference"] == row.reference, row.name
            if row.waits_s:
                wait_s = (delivery["due_at"] - attempt["finished_at"]).total_seconds()
                least, most = row.waits_s
                assert least <= wait_s <= most, row.name
            else:
                assert delivery["settled_at"] is not None, row.name
        assert (attempt["outcome"], attempt["status"]) == (row.outcome, row.status), row.name
        assert (row.error or "") in (attempt["error"] or ""), row.name
        assert (row.error is None) == (attempt["error"] is None), row.name
        if row.kept is not None:
            assert attempt["answer"] == row.kept, row.name
        # Signed, whatever they do
        arrived = stub.at(f"/{row.name}")[0]
        assert arrived.headers["webhook-id"] == str(owed[row.name].delivery_id)
        Webhook(rows.SECRET).verify(arrived.body, dict(arrived.headers))
    assert not stub.at("/elsewhere")
    # What an answer does to the endpoint
    assert (await owed["gone"].endpoint())["state"] == "suspended"
    assert (await owed["bad"].endpoint())["failures"] == 0
    assert (await owed["busy"].endpoint())["failures"] == 0
    assert (await owed["silent"].endpoint())["failures"] >= 1
    notices = await pool.fetch(
        "SELECT kind FROM notice WHERE endpoint_id = $1 ORDER BY kind", owed["gone"].endpoint_id
    )
    assert [row["kind"] for row in notices] == ["delivery_dead", "endpoint_suspended"]


async def test_a_mistake_is_tried_three_times(pool: asyncpg.Pool, stub: StubAuthority) -> None:
    stub.answer("/intake", Answer(400, b"no such category"))
    owed = await owe(pool, stub.url())
    for count in (1, 2):
        await owed.attempts(count)
        await owed.make_due()
    attempts = await owed.attempts(3)
    assert {(one["outcome"], one["answer"]) for one in attempts} == {
        ("rejected", "no such category")
    }
    assert (await owed.row())["state"] == "dead"
    [notice] = await pool.fetch("SELECT kind, detail FROM notice")
    assert notice["kind"] == "delivery_dead"
    assert "answered 400" in notice["detail"]
    assert len(stub.received) == 3


async def test_taken_but_the_reply_is_lost(pool: asyncpg.Pool, stub: StubAuthority) -> None:
    stub.answer("/intake", Answer(cut=True), Answer(409, b'{"reference": "R-1"}'))
    owed = await owe(pool, stub.url())
    await owed.attempts(1)
    await owed.make_due()
    await owed.attempts(2)
    delivery = await owed.row()
    assert (delivery["state"], delivery["reference"]) == ("delivered", "R-1")
    first, second = stub.received
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


async def test_the_fifth_failure_spares_the_address(
    pool: asyncpg.Pool, stub: StubAuthority
) -> None:
    stub.answer("/intake", Answer(500))
    owed = await owe(pool, stub.url())
    for count in range(1, policy.BREAK_AFTER):
        await owed.attempts(count)
        endpoint = await owed.endpoint()
        spared = endpoint["open_until"] is not None
        assert spared == (endpoint["failures"] >= policy.BREAK_AFTER)
        await owed.make_due()
    last = (await owed.attempts(policy.BREAK_AFTER))[-1]
    spared_for = (await owed.endpoint())["open_until"] - last["finished_at"]
    assert spared_for == timedelta(seconds=policy.PROBE_EVERY_S)
    # Due or not, it is left alone.
    await owed.make_due()
    await asyncio.sleep(0.5)
    assert len(stub.received) == policy.BREAK_AFTER
    # The time for the probe comes; it gets through, and all goes on.
    stub.answer("/intake", OK)
    await pool.execute("UPDATE endpoint SET open_until = now()")
    await owed.make_due()
    await owed.attempts(policy.BREAK_AFTER + 1)
    endpoint = await owed.endpoint()
    assert (endpoint["failures"], endpoint["open_until"]) == (0, None)
    assert (await owed.row())["state"] == "delivered"


async def test_an_answer_of_fifty_megabytes_is_not_read(
    pool: asyncpg.Pool, stub: StubAuthority
) -> None:
    flood = Flood(50_000_000)
    stub.answer("/intake", flood)
    owed = await owe(pool, stub.url())
    [attempt] = await owed.attempts(1)
    assert (attempt["outcome"], attempt["status"]) == ("delivered", 200)
    assert len(attempt["answer"]) <= policy.ANSWER_BYTES
    async with asyncio.timeout(10):
        await flood.over.wait()
    assert flood.cut_off
    # What it read, and what the sockets between us held
    assert MAX_ANSWER_BYTES <= flood.sent <= flood.size / 4


# --- no conversation at all -----------------------------------------------------------------------


async def test_nobody_there(pool: asyncpg.Pool) -> None:
    async with StubAuthority() as stub:
        url = stub.url()
    [attempt, *_] = await (await owe(pool, url)).attempts(1)
    assert (attempt["outcome"], attempt["status"]) == ("deferred", None)
    assert "no connection" in attempt["error"]


async def test_a_certificate_that_nobody_vouches_for(pool: asyncpg.Pool, tmp_path: Path) -> None:
    async with StubAuthority(tls=self_signed(tmp_path)) as stub:
        [attempt, *_] = await (await owe(pool, stub.url())).attempts(1)
    assert (attempt["outcome"], attempt["status"]) == ("deferred", None)
    assert "certificate" in attempt["error"].lower()
    assert stub.received == []


async def test_something_else_than_tls(pool: asyncpg.Pool) -> None:
    async with babbling() as port:
        owed = await owe(pool, f"https://127.0.0.1:{port}/intake")
        [attempt, *_] = await owed.attempts(1)
    assert (attempt["outcome"], attempt["status"]) == ("deferred", None)
    assert "ssl" in attempt["error"].lower()


@asynccontextmanager
async def babbling() -> AsyncIterator[int]:
    """A server that greets in plain text; its port."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"220 mail.council.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)  # noqa: TID251 - a certificate is of today
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = folder / "stub.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
