"""Mail to those who follow a report: asked first, told of news, and left alone."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from pydantic import SecretStr

from api import db, mailing
from api.background import run_background
from api.delivery import bounces
from api.settings import Settings
from api.store import mailings
from api.vault import Vault
from tests.support import rows
from tests.support.app import KEY, WEST, Api, serving
from tests.support.stub_mail import StubMail

BASE = "https://georouter.example/base"
TO = "jo@citizen.example"
VAULT = Vault([KEY], where="test")
LINK = re.compile(r"https://georouter\.example/base(/v1/\S+)")


class Post:
    """An application with a mail server behind it."""

    def __init__(self, api: Api, mail: StubMail, settings: Settings) -> None:
        self.api = api
        self.mail = mail
        self.settings = settings

    async def follow(self, **fields: Any) -> tuple[str, str]:
        """A new report, and the private link of one who wants mail."""
        report_id = (await self.api.post_report()).json()["id"]
        sealed = VAULT.seal(json.dumps({"email": TO}))
        async with db.acquire(self.api.pool) as conn:
            token = await rows.follower(conn, report_id, contact=sealed, notify=True, **fields)
            await conn.execute(
                "UPDATE follower SET token = $1, contact_hmac = '\\x01' WHERE report_id = $2",
                VAULT.seal(token),
                report_id,
            )
        return report_id, token

    async def send(self) -> list[EmailMessage]:
        """Send what is due; what the mail server got of it."""
        before = len(self.mail.received)
        while await mailing.send_one(self.api.pool, self.settings, VAULT, jitter=lambda: 0.5):
            pass
        return self.mail.messages()[before:]

    async def tell(self, report_id: str, state: str, **more: Any) -> None:
        path = f"/v1/authorities/{self.api.authorities[WEST]}/reports/{report_id}/updates"
        answer = await self.api.post(path, update_id=state, state=state, **more)
        assert answer.status_code == 201

    async def later(self, hours: float) -> None:
        await self.api.pool.execute(
            "UPDATE follower SET mail_due_at = mail_due_at - $1 * interval '1 hour'", hours
        )


@pytest.fixture
async def post(database_url: str, pool: asyncpg.Pool) -> AsyncIterator[Post]:
    async with StubMail() as mail:
        given: dict[str, Any] = {
            "smtp_host": "127.0.0.1",
            "smtp_port": mail.port,
            "smtp_tls": "none",
            "smtp_from": "reports@georouter.example",
            "public_url": BASE,
            "delivery_timeout_s": 2.0,
        }
        async with serving(database_url, pool, **given) as api:
            live = {"delivery_mode": "live", "secret_keys": SecretStr(KEY)}
            yield Post(api, mail, Settings(**given, **live))


def links(message: EmailMessage) -> list[str]:
    return LINK.findall(message.get_content())


async def test_an_address_is_asked_once_and_told_nothing_until_it_is_confirmed(post: Post) -> None:
    report_id, token = await post.follow()
    [asked] = await post.send()
    assert asked["To"] == TO
    assert asked["Auto-Submitted"] == "auto-generated"
    [confirm] = links(asked)
    assert confirm.endswith("/confirm")
    # the private link is not for whoever owns an address that somebody else named
    assert token not in asked.as_string()
    assert "pothole" in asked["Subject"]

    await post.tell(report_id, "planned")
    await post.later(2)
    assert await post.send() == []

    # a scanner that follows the link confirms nothing
    page = await post.api.client.get(confirm)
    assert page.status_code == 200
    assert "method='post' action='confirm'" in page.text
    assert page.headers["referrer-policy"] == "no-referrer"
    assert await post.send() == []
    for _ in range(2):
        assert (await post.api.client.post(confirm)).status_code == 200
    [news] = await post.send()
    assert "West has planned the work." in news.get_content()
    assert await post.send() == []


async def test_news_is_collected_for_an_hour(post: Post) -> None:
    report_id, token = await post.follow(confirmed=True)
    assert await post.send() == []
    await post.tell(report_id, "acknowledged")
    [first] = await post.send()
    await post.tell(report_id, "planned", note="Soon.\nReally.", expected_on="2027-02-03")
    await post.tell(report_id, "fixed")
    assert await post.send() == []
    await post.later(1)
    [second] = await post.send()
    text = second.get_content().replace("\r\n", "\n")
    assert "3 February 2027" in text
    assert "  > Soon.\n  > Really.\n" in text
    assert "West says that it is fixed." in text
    assert "taken note" not in text
    assert first["Message-ID"] != second["Message-ID"]
    assert f"/v1/track/{token}" in links(second)
    await post.later(1)
    assert await post.send() == []
    # nothing was due any more; news is told at once
    await post.api.client.post(f"/v1/track/{token}/still-there")
    [third] = await post.send()
    assert "still there" in third.get_content()


async def test_one_click_ends_it(post: Post) -> None:
    report_id, _ = await post.follow(confirmed=True)
    await post.tell(report_id, "planned")
    [news] = await post.send()
    assert news["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    [unsubscribe] = LINK.findall(news["List-Unsubscribe"].replace(">", " "))
    assert (await post.api.client.get(unsubscribe)).status_code == 200
    await post.later(1)
    await post.tell(report_id, "in_progress")
    assert len(await post.send()) == 1  # looking at the page ended nothing

    done = await post.api.client.post(unsubscribe, data={"List-Unsubscribe": "One-Click"})
    assert done.status_code == 200
    await post.later(1)
    await post.tell(report_id, "fixed")
    assert await post.send() == []
    for path in ("confirm", "unsubscribe"):
        assert (await post.api.client.post(f"/v1/mail/wrong/{path}")).status_code == 404


async def test_who_dies_in_the_middle_leaves_the_same_mail_to_be_sent(post: Post) -> None:
    report_id, _ = await post.follow(confirmed=True)
    await post.tell(report_id, "planned")
    async with db.acquire(post.api.pool) as conn:
        dead = await mailings.claim_mailing(
            conn, lease_s=60, mail_token=VAULT.seal("t"), mail_token_sha256=bytes(32)
        )
    assert dead is not None
    assert await post.send() == []
    await post.tell(report_id, "fixed")
    await post.later(1)
    [sent] = await post.send()
    assert f"<{dead.mail_id}.{dead.upto}@georouter.example>" == sent["Message-ID"]
    assert "fixed" not in sent.get_content()
    async with db.acquire(post.api.pool) as conn:
        assert not await mailings.settle_mailing(conn, dead, done=True)
    await post.later(1)
    [rest] = await post.send()
    assert "West says that it is fixed." in rest.get_content()


async def test_a_mail_that_is_not_taken_is_tried_again_and_no_news_is_lost(post: Post) -> None:
    report_id, _ = await post.follow(confirmed=True)
    await post.tell(report_id, "planned")
    post.mail.behave = "busy"
    [tried] = await post.send()
    assert await post.send() == []
    post.mail.behave = "take"
    await post.later(1)
    [again] = await post.send()
    assert again.as_bytes() == tried.as_bytes()


async def test_a_mailbox_that_is_not_there_gets_no_more(post: Post) -> None:
    report_id, token = await post.follow(confirmed=True)
    post.mail.behave = "no mailbox"
    await post.tell(report_id, "planned")
    await post.send()
    post.mail.behave = "take"
    await post.tell(report_id, "fixed")
    await post.later(9)
    assert await post.send() == []
    assert (await post.api.client.get(f"/v1/track/{token}")).json()["mail"] == "stopped"


async def test_what_comes_back_stops_it(post: Post, database_url: str) -> None:
    report_id, token = await post.follow(confirmed=True)
    await post.tell(report_id, "planned")
    [news] = await post.send()
    bounce = (
        "From: MAILER-DAEMON@mail.example\nMessage-ID: <1@mail.example>\n"
        'Content-Type: multipart/report; report-type=delivery-status; boundary="b"\n\n'
        "--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mail.example\n\n"
        f"Final-Recipient: rfc822; {TO}\nAction: failed\nStatus: 5.1.1\n\n"
        f"--b\nContent-Type: text/rfc822-headers\n\nMessage-ID: {news['Message-ID']}\n\n--b--\n"
    ).encode()
    found = bounces.read(bounce)
    assert found is not None
    assert found.failed
    done = subprocess.run(  # noqa: ASYNC221 - nothing else is to happen
        [sys.executable, "-m", "scripts.cli", "bounces", "-"],
        cwd=Path(__file__).parents[2],
        env={"GEOROUTER_DATABASE_URL": database_url, "PATH": "/usr/bin:/bin"},
        input=bounce,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    await post.tell(report_id, "fixed")
    await post.later(1)
    assert await post.send() == []
    assert (await post.api.client.get(f"/v1/track/{token}")).json()["mail"] == "stopped"


async def test_nobody_is_flooded_with_questions(post: Post) -> None:
    for _ in range(5):
        await post.follow()
    assert len(await post.send()) == mailings.ASKED_A_DAY


async def test_news_from_before_one_followed_is_not_told(post: Post) -> None:
    report_id, _ = await post.follow(confirmed=True)
    await post.tell(report_id, "planned")
    await post.send()
    async with db.acquire(post.api.pool) as conn:
        await rows.follower(
            conn,
            report_id,
            kind="me_too",
            contact=VAULT.seal(json.dumps({"email": "other@citizen.example"})),
            notify=True,
            confirmed=True,
        )
        assert await conn.fetchval("SELECT count(*) FROM follower") == 2
    assert await post.send() == []


def test_nothing_is_mailed_in_a_rehearsal_or_without_a_way() -> None:
    given: dict[str, Any] = {"smtp_host": "h", "smtp_from": "a@b.example", "public_url": BASE}
    assert Settings(**given, delivery_mode="live").mails_followers
    assert not Settings(**given).mails_followers
    assert not Settings(delivery_mode="live", public_url=BASE).mails_followers
    del given["public_url"]
    assert not Settings(**given, delivery_mode="live").mails_followers


async def test_the_worker_process_sends_them(post: Post, database_url: str) -> None:
    report_id, _ = await post.follow(confirmed=True)
    await post.tell(report_id, "planned")
    more = {"database_url": SecretStr(database_url), "photos": "memory:///"}
    settings = post.settings.model_copy(update=more)
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(
            run_background(settings, stop=stop, open_version=post.api.shelf.open, mail_every_s=0.05)
        )
        async with asyncio.timeout(30):
            while not post.mail.received:  # noqa: ASYNC110 - the stub counts, and tells nobody
                await asyncio.sleep(0.02)
        stop.set()
    [news] = post.mail.messages()
    assert "West has planned the work." in news.get_content()
