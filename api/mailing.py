"""Mails those who follow a report and asked for it what became of it.

It promises that an address gets nothing but one question until somebody there has confirmed it,
then at most one mail an hour, and nothing after it is unsubscribed or a mail came back. Killed
anywhere, a mail is at most repeated, under the same Message-ID.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP as LINES
from email.utils import format_datetime
from typing import Final

import asyncpg
import structlog

from api import db, timeline
from api.delivery import policy
from api.delivery.channels.mail import Mail
from api.settings import Settings
from api.store import mailings
from api.store.mailings import Mailing
from api.vault import SecretUnreadable, Vault

MOST_TRIES: Final = 12

log = structlog.get_logger()


async def run(
    pool: asyncpg.Pool,
    settings: Settings,
    vault: Vault,
    *,
    jitter: Callable[[], float],
    every_s: float,
) -> None:
    """Send what is due, for ever."""
    while True:
        try:
            while await send_one(pool, settings, vault, jitter=jitter):
                pass
        except db.DatabaseUnavailable:
            pass  # the worker tells of it; nothing is lost
        except Exception:
            # A loop that ended would leave followers without news and without a sign.
            log.exception("mailing failed")
        await asyncio.sleep(every_s)


async def send_one(
    pool: asyncpg.Pool, settings: Settings, vault: Vault, *, jitter: Callable[[], float]
) -> bool:
    """Send one mail that is due, with no connection held; whether there was one."""
    fresh = secrets.token_urlsafe(32)
    async with db.acquire(pool) as conn:
        mailing = await mailings.claim_mailing(
            conn,
            lease_s=settings.delivery_lease_s,
            mail_token=vault.seal(fresh),
            mail_token_sha256=hashlib.sha256(fresh.encode()).digest(),
        )
    if mailing is None:
        return False
    outcome = await _send(mailing, settings, vault)
    done, delay_s, stopped = _after(mailing, outcome, jitter=jitter())
    async with db.acquire(pool) as conn:
        settled = await mailings.settle_mailing(
            conn, mailing, done=done, delay_s=delay_s, stopped=stopped
        )
    log.info(
        "follower mailed" if settled else "follower mail lease lost",
        follower=str(mailing.id),
        upto=mailing.upto,
        attempt=mailing.tries,
        outcome=type(outcome).__name__.lower(),
    )
    return True


async def _send(mailing: Mailing, settings: Settings, vault: Vault) -> policy.Outcome:
    try:
        to = json.loads(vault.open(mailing.contact)).get("email")
        if not to:
            return policy.Gone(why="there is no address")
        message = compose(
            mailing,
            to=to,
            token=vault.open(mailing.token),
            mail_token=vault.open(mailing.mail_token),
            sender=settings.smtp_from or "",
            base=settings.link_base,
        )
        return await Mail(settings).hand_over(message, to)
    except SecretUnreadable as error:
        return policy.Deferred(why=str(error))


def _after(
    mailing: Mailing, outcome: policy.Outcome, *, jitter: float
) -> tuple[bool, float, str | None]:
    """Whether this mail is over, how long until its next try, and why there is none any more."""
    following = policy.after(
        outcome,
        attempt=mailing.tries,
        age_s=mailing.age_s,
        jitter=jitter,
        rejections=mailing.tries - 1,
    )
    if following.state == "delivered":
        return True, 0.0, None
    refused = isinstance(outcome, policy.Gone | policy.Rejected)
    if following.state == "dead" and refused:
        return True, 0.0, "refused"
    # Of an outage of ours this mail is given up, not those to come.
    return following.state == "dead" or mailing.tries >= MOST_TRIES, following.delay_s, None


def compose(
    mailing: Mailing, *, to: str, token: str, mail_token: str, sender: str, base: str
) -> EmailMessage:
    """The mail: the same for every try."""
    message = EmailMessage(policy=LINES)
    message["From"] = sender
    message["To"] = to
    message["Date"] = format_datetime(mailing.since)
    message["Message-ID"] = f"<{mailing.mail_id}.{mailing.upto}@{sender.rpartition('@')[2]}>"
    message["Auto-Submitted"] = "auto-generated"
    what = " ".join(mailing.category.replace("_", " ").split())
    unsubscribe = f"{base}/v1/mail/{mail_token}/unsubscribe"
    if mailing.upto == 0:
        message["Subject"] = f"Please confirm: news of your report ({what})"
        message.set_content(
            "Somebody, probably you, asked for news of a street report to be mailed to this "
            f"address. If that is right, confirm it here:\n\n{base}/v1/mail/{mail_token}/confirm\n"
            "\nIf it is not, do nothing: nothing else is sent.\n"
        )
        return message
    message["Subject"] = f"News of your report ({what})"
    message["List-Unsubscribe"] = f"<{unsubscribe}>"
    message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
    told = [event for row in mailing.events if (event := timeline.event_of(row)) is not None]
    lines = []
    for event in told:
        lines.append(f"{timeline.moment(event.at)}: {event.sentence}")
        if event.note:
            lines += [f"  > {line}" for line in event.note.splitlines()]
    news = "\n".join(lines)
    message.set_content(
        f"{news}\n\nAll of it, and what you can do:\n{base}/v1/track/{token}\n\n"
        f"No more mail about this report:\n{unsubscribe}\n"
    )
    return message
