"""The mail channel: a report as one message, plain text and HTML, handed to our mail server.

The bytes depend on nothing but the delivery, its Message-ID above all, so a repetition can be told
and a bounce finds its delivery. Handed over is delivered; what comes back later, `bounces` notes.
"""

from __future__ import annotations

import asyncio
import html
import re
import ssl
from contextlib import suppress
from email.message import EmailMessage
from email.policy import SMTP as LINES
from email.utils import format_datetime
from uuid import UUID
from zoneinfo import ZoneInfo

import aiosmtplib

from api.delivery import policy
from api.delivery.outbox import Claimed
from api.settings import Settings
from api.store.probes import Probe

# "Bad destination mailbox address": the one answer that says the mailbox does not exist. A bare 550
# may as well be a filter's.
_NO_MAILBOX = re.compile(r"5\.1\.1\b")
_LONDON = ZoneInfo("Europe/London")
QUIT_S = 2.0
_NO_SERVER = policy.Deferred(why="this service has no mail server to send by")


class Mail:
    """SMTP to the mail server of the settings; `tls` instead of the system's certificates."""

    def __init__(self, settings: Settings, *, tls: ssl.SSLContext | None = None) -> None:
        self._settings = settings
        self._tls = tls

    async def send(self, claimed: Claimed) -> policy.Outcome:
        """Hand the message over."""
        sender = self._settings.smtp_from
        if sender is None:
            return _NO_SERVER
        return await self.hand_over(compose(claimed, sender=sender), claimed.url)

    async def probe(self, probe: Probe) -> policy.Outcome:
        """Mail a challenge's code, or a test. That it was handed over says nothing of the code."""
        sender = self._settings.smtp_from
        if sender is None:
            return _NO_SERVER
        return await self.hand_over(compose_probe(probe, sender=sender), probe.url)

    async def hand_over(self, composed: EmailMessage, url: str) -> policy.Outcome:
        """Hand a message over for an address, which may begin with `mailto:`."""
        settings = self._settings
        if settings.smtp_host is None or settings.smtp_from is None:
            return _NO_SERVER
        password = settings.smtp_password
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user,
            password=password.get_secret_value() if password is not None else None,
            use_tls=settings.smtp_tls == "tls",
            start_tls=settings.smtp_tls == "starttls",
            tls_context=self._tls,
            timeout=settings.delivery_timeout_s,
        )
        message = composed.as_bytes()
        recipient = url.removeprefix("mailto:")
        try:
            async with asyncio.timeout(settings.delivery_timeout_s):
                await client.connect()
                _, said = await client.sendmail(settings.smtp_from, [recipient], message)
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            return _refused(refused.code, refused.message)
        except aiosmtplib.SMTPDataError as error:
            return _refused(error.code, error.message)
        except aiosmtplib.SMTPResponseException as error:
            # Of the greeting, the login or the sender: about us, not about this recipient. What it
            # says is not kept, for it may quote what we logged in with.
            why = f"our mail server refused us: {type(error).__name__}"
            return policy.Deferred(status=error.code, why=why)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            return policy.Deferred(why=f"our mail server did not take it: {type(error).__name__}")
        finally:
            # It has the message, or not: how we part changes nothing.
            with suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                await client.quit(timeout=QUIT_S)
            client.close()
        return policy.Delivered(status=250, answer=_cut(said))


def compose(claimed: Claimed, *, sender: str) -> EmailMessage:
    """The message: the same for every try."""
    message = EmailMessage(policy=LINES)
    message["Subject"] = f"{_line(claimed.category)}: street report {claimed.report_id}"
    message["From"] = sender
    message["To"] = claimed.url.removeprefix("mailto:")
    message["Date"] = format_datetime(claimed.received_at)
    message["Message-ID"] = message_id(claimed.delivery_id, sender)
    message["Auto-Submitted"] = "auto-generated"
    facts = _facts(claimed)
    text = "\n".join(f"{name}: {value}" for name, value in facts)
    message.set_content(f"{claimed.description}\n\n{text}\n")
    rows = "".join(
        f"<tr><th align='left'>{html.escape(name)}</th><td>{_linked(value)}</td></tr>"
        for name, value in facts
    )
    words = html.escape(claimed.description).replace("\n", "<br>")
    message.add_alternative(
        f"<html><body><p>{words}</p><table>{rows}</table></body></html>", subtype="html"
    )
    # By default it is random.
    message.set_boundary(f"=_{claimed.delivery_id.hex}")
    return message


def compose_probe(probe: Probe, *, sender: str) -> EmailMessage:
    """The message of a challenge or a test: the same for every try."""
    name = _line(probe.authority_name)
    message = EmailMessage(policy=LINES)
    message["From"] = sender
    message["To"] = probe.url.removeprefix("mailto:")
    message["Date"] = format_datetime(probe.asked_at)
    message["Message-ID"] = message_id(probe.id, sender)
    message["Auto-Submitted"] = "auto-generated"
    if probe.kind == "test":
        message["Subject"] = f"Test: street reports for {name}"
        message.set_content(f"This is a test, asked for by {name}. There is nothing to do.\n")
        return message
    message["Subject"] = f"Confirm: street reports for {name}"
    message.set_content(
        f"Street reports for {name} are to be mailed to this address. If that is right, confirm it "
        f"within 24 hours with this code:\n\n{probe.text}\n\n"
        f"It belongs to the endpoint {probe.endpoint_id}. If you know nothing of this, do nothing: "
        "no report is sent here.\n"
    )
    return message


def message_id(delivery_id: UUID, sender: str) -> str:
    """The Message-ID of every try of a delivery."""
    return f"<{delivery_id}@{sender.rpartition('@')[2]}>"


def _facts(claimed: Claimed) -> list[tuple[str, str]]:
    place = f"{claimed.lat:.6f}/{claimed.lon:.6f}"
    lat, lon = place.split("/")
    facts = [
        ("Category", claimed.category),
        ("Place", f"{lat}, {lon} (latitude, longitude)"),
        ("Map", f"https://www.openstreetmap.org/?mlat={lat}&mlon={lon}#map=18/{place}"),
        ("Exact to", f"about {claimed.accuracy_m:.0f} m" if claimed.accuracy_m else ""),
        ("Received", f"{claimed.received_at.astimezone(_LONDON):%d %B %Y, %H:%M %Z}"),
        ("For", claimed.authority_name),
        ("Because", str(claimed.decision.get("reason") or "")),
        # Where it is in doubt that it is theirs, they are told what is not known.
        ("In doubt", str(claimed.decision.get("question") or "")),
        ("Reporter", ", ".join((claimed.reporter or {}).values())),
        ("Perhaps spam", ", ".join(one.replace("_", " ") for one in claimed.spam)),
        *(("Photo", photo["url"]) for photo in claimed.photos),
        ("Photos until", f"{claimed.photos[0]['expires_at'][:10]}" if claimed.photos else ""),
        ("Report", str(claimed.report_id)),
    ]
    return [(name, _line(value)) for name, value in facts if value]


def _linked(value: str) -> str:
    safe = html.escape(value)
    return f'<a href="{safe}">{safe}</a>' if value.startswith("https://") else safe


def _line(value: str) -> str:
    """One line: what could begin another header, or a line of its own, is a space."""
    return " ".join(value.split())


def _refused(code: int, said: str) -> policy.Outcome:
    answer, why = _cut(said), f"the mail server answered {code}"
    if code < 500:
        return policy.Deferred(status=code, answer=answer, why=why)
    if code == 550 and _NO_MAILBOX.match(said):
        return policy.Gone(status=code, answer=answer, why=f"{why}: there is no such mailbox")
    return policy.Rejected(status=code, answer=answer, why=why)


def _cut(said: str) -> str:
    return said.encode()[: policy.ANSWER_BYTES].decode("utf-8", "ignore")
