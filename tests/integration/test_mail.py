"""Reports by mail: to a real SMTP server that takes, refuses, hangs up, and sends back."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr

from api import db
from api.delivery import bounces, outbox
from api.delivery.channels.mail import Mail, compose
from api.delivery.outbox import Claimed
from api.delivery.policy import Deferred, Delivered, Gone, Next, Outcome, Rejected
from api.settings import Settings
from tests.support import rows
from tests.support.app import KEY
from tests.support.stub_mail import StubMail

FROM = "reports@georouter.example"
TO = "highways@council.example"
PASSWORD = "correct horse battery"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def mail() -> AsyncIterator[StubMail]:
    async with StubMail() as mail:
        yield mail


def settings_for(mail: StubMail, **more: Any) -> Settings:
    facts: dict[str, Any] = {
        "delivery_timeout_s": 1.0,
        "smtp_host": "127.0.0.1",
        "smtp_port": mail.port,
        "smtp_tls": "none",
        "smtp_from": FROM,
    }
    return Settings(**(facts | more))


async def claim(pool: asyncpg.Pool, **fields: Any) -> Claimed:
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn, "Dogger Council")
        endpoint_id = await rows.endpoint(
            conn, authority_id, url=f"mailto:{TO}", channel="mail", secret=""
        )
        await rows.delivery(conn, authority_id, endpoint_id)
        [claimed] = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
    return replace(claimed, **fields)


def parts(message: EmailMessage) -> tuple[str, str]:
    plain, rich = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert rich is not None
    return plain.get_content(), rich.get_content()


async def test_a_report_is_one_clear_message(pool: asyncpg.Pool, mail: StubMail) -> None:
    claimed = await claim(pool, accuracy_m=8.0)
    outcome = await Mail(settings_for(mail)).send(claimed)
    assert outcome == Delivered(status=250, answer="2.0.0 so be it")
    [message] = mail.messages()
    assert (mail.senders, mail.recipients) == ([FROM], [TO])
    assert (message["From"], message["To"]) == (FROM, TO)
    assert message["Subject"] == f"pothole: street report {claimed.report_id}"
    assert message["Message-ID"] == f"<{claimed.delivery_id}@georouter.example>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "multipart/alternative"
    plain, rich = parts(message)
    for text in (plain, rich):
        assert "A hole as deep as a bucket, by № 7" in text
        assert "55.250000, 2.500000" in text
        assert "15 January 2027, 08:00 GMT" in text
        assert str(claimed.report_id) in text
        assert "about 8 m" in text
        assert "the point lies inside Dogger" in text
    link = "https://www.openstreetmap.org/?mlat=55.250000&mlon=2.500000#map=18/55.250000/2.500000"
    assert link in plain
    assert f'<a href="{link.replace("&", "&amp;")}">' in rich


async def test_what_strangers_write_stays_text(pool: asyncpg.Pool, mail: StubMail) -> None:
    nasty = 'x\r\nBcc: all@example.org\r\n\r\n<script>alert("1")</script>&\n.\nQUIT'
    claimed = await claim(
        pool,
        description=nasty.replace("\r", ""),
        category=nasty,
        authority_name=nasty,
        decision={"reason": nasty, "question": nasty},
    )
    await Mail(settings_for(mail)).send(claimed)
    [message] = mail.messages()
    assert mail.recipients == [TO]
    assert "Bcc" not in message
    assert len(message.keys()) == len(set(message.keys()))
    plain, rich = parts(message)
    assert "<script" not in rich
    assert "&lt;script&gt;" in rich
    assert plain.replace("\r\n", "\n").startswith("x\nBcc: all@example.org\n\n<script>")
    assert "\n.\nQUIT" in plain.replace("\r\n", "\n")


async def test_every_try_is_the_same_bytes(pool: asyncpg.Pool) -> None:
    claimed = await claim(pool)
    again = replace(claimed, attempt=2, age_s=99.0)
    first, second = (compose(one, sender=FROM).as_bytes() for one in (claimed, again))
    assert first == second


@pytest.mark.parametrize(
    ("behave", "kind", "status"),
    [
        ("busy", Deferred, 451),
        ("greylist", Deferred, 450),
        ("refuse", Rejected, 554),
        ("blocked", Rejected, 550),
        ("no mailbox", Gone, 550),
        # that is about us, not about the council
        ("bad sender", Deferred, 550),
        ("cut", Deferred, None),
        ("cut early", Deferred, None),
        ("hang", Deferred, None),
    ],
)
async def test_what_the_server_says(
    pool: asyncpg.Pool, mail: StubMail, behave: str, kind: type[Outcome], status: int | None
) -> None:
    mail.behave = behave
    outcome = await Mail(settings_for(mail)).send(await claim(pool))
    assert isinstance(outcome, kind)
    assert outcome.status == status


# --- encryption and login -------------------------------------------------------------------------


@asynccontextmanager
async def encrypted(folder: Path, **more: Any) -> AsyncIterator[tuple[StubMail, ssl.SSLContext]]:
    """A server that insists on STARTTLS, and a context that knows its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)  # noqa: TID251 - the certificate is checked against the real clock
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    trusting = ssl.create_default_context(cafile=str(file))
    async with StubMail(tls=serving, **more) as mail:
        yield mail, trusting


async def test_starttls_and_login(pool: asyncpg.Pool, tmp_path: Path) -> None:
    claimed = await claim(pool)
    async with encrypted(tmp_path, password=PASSWORD) as (mail, trusting):
        settings = settings_for(
            mail,
            smtp_host="localhost",
            smtp_tls="starttls",
            smtp_user="georouter",
            smtp_password=SecretStr(PASSWORD),
        )
        assert isinstance(await Mail(settings, tls=trusting).send(claimed), Delivered)
        assert len(mail.received) == 1

        # A certificate that nobody vouches for, a wrong password: nothing is handed over.
        assert isinstance(await Mail(settings).send(claimed), Deferred)
        wrong = settings.model_copy(update={"smtp_password": SecretStr("wrong " + PASSWORD)})
        outcome = await Mail(wrong, tls=trusting).send(claimed)
        assert isinstance(outcome, Deferred)
        assert PASSWORD not in repr(outcome)
        assert len(mail.received) == 1


async def test_without_starttls_nothing_is_said_in_the_clear(
    pool: asyncpg.Pool, mail: StubMail
) -> None:
    outcome = await Mail(settings_for(mail, smtp_tls="starttls")).send(await claim(pool))
    assert isinstance(outcome, Deferred)
    assert mail.received == []


@pytest.mark.parametrize(
    "settings",
    [
        {"smtp_host": "mail.example"},
        {"smtp_from": FROM},
        {"smtp_host": "mail.example", "smtp_from": "no address"},
        {"smtp_host": "mail.example", "smtp_from": f"{FROM}\nBcc: x@y.example"},
        {"smtp_host": "mail.example", "smtp_from": FROM, "smtp_user": "u"},
        {
            "smtp_host": "mail.example",
            "smtp_from": FROM,
            "smtp_user": "u",
            "smtp_password": "p",
            "smtp_tls": "none",
        },
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"smtp_from|GEOROUTER_SMTP"):
        Settings(**settings)


async def test_without_a_mail_server_it_waits(pool: asyncpg.Pool) -> None:
    outcome = await Mail(Settings()).send(await claim(pool))
    assert outcome == Deferred(why="this service has no mail server to send by")


# --- bounces --------------------------------------------------------------------------------------


def returned(message: EmailMessage) -> bytes:
    """What a mail server sends back."""
    return (
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="B"\n\n'
        b"--B\nContent-Type: text/plain\n\nSorry.\n"
        b"--B\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; relay.example\n\n"
        b"Final-Recipient: rfc822; highways@council.example\nAction: failed\nStatus: 5.2.2\n"
        b"Diagnostic-Code: smtp; 552 5.2.2 mailbox full\n\n"
        b"--B\nContent-Type: message/rfc822\n\n" + message.as_bytes() + b"\n--B--\n"
    )


async def test_a_mail_that_comes_back_is_dead(
    pool: asyncpg.Pool, mail: StubMail, database_url: str, tmp_path: Path
) -> None:
    claimed = await claim(pool)
    outcome = await Mail(settings_for(mail)).send(claimed)
    async with db.acquire(pool) as conn:
        await outbox.settle(conn, claimed, outcome, Next("delivered"))
    file = tmp_path / "bounce.eml"
    file.write_bytes(returned(mail.messages()[0]))

    def cli() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "scripts.cli", "bounces", str(file)],
            cwd=ROOT,
            env={
                "PATH": "/usr/bin:/bin",
                "GEOROUTER_DATABASE_URL": database_url,
                "GEOROUTER_SECRET_KEYS": KEY,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    assert cli().returncode == 0
    delivery = await pool.fetchrow("SELECT state, settled_at FROM delivery")
    assert delivery["state"] == "dead"
    attempt = await pool.fetchrow("SELECT outcome, answer, error FROM attempt")
    assert attempt["outcome"] == "rejected"
    assert "552 5.2.2 mailbox full" in attempt["answer"]
    assert attempt["error"] == "the mail came back"
    # Again it says that there is nothing to do, and so it does for what is no bounce.
    assert cli().returncode == 4
    file.write_bytes(b"Subject: back on Monday\n\n")
    assert cli().returncode == 4


async def test_only_mails_can_come_back(pool: asyncpg.Pool) -> None:
    claimed = await claim(pool)
    message = compose(claimed, sender=FROM)
    found = bounces.read(returned(message))
    assert found is not None
    async with db.acquire(pool) as conn:
        assert not await outbox.bounce(conn, found.delivery_id, "x")  # it was not delivered
        await outbox.settle(conn, claimed, Delivered(), Next("delivered"))
        await conn.execute("UPDATE endpoint SET channel = 'webhook'")
        assert not await outbox.bounce(conn, found.delivery_id, "x")
        await conn.execute("UPDATE endpoint SET channel = 'mail'")
        assert await outbox.bounce(conn, found.delivery_id, "x")
