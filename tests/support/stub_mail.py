"""A mail server for tests: aiosmtpd on a real socket of loopback, doing as it is told.

`behave` names what it does with a message: take it, or one of the ways in which servers do not.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from types import TracebackType
from typing import Any, Self, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class StubMail:
    """Used as `async with StubMail() as mail`, then `mail.port`."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, password: str | None = None) -> None:
        self.behave = "take"
        self.said = ""  # what it answers where it is free to choose its words
        self.received: list[bytes] = []  # also of messages that it did not take
        self.senders: list[str] = []
        self.recipients: list[str] = []
        self._tls = tls
        self._password = password
        self._sessions: list[SMTP] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for session in self._sessions:
            task = session._handler_coroutine
            if task is not None:
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task
            if session.transport is not None:
                session.transport.close()
        await self._server.wait_closed()

    def messages(self) -> list[EmailMessage]:
        return [
            cast("EmailMessage", message_from_bytes(raw, policy=default)) for raw in self.received
        ]

    def _session(self) -> SMTP:
        session = _Session(
            self,
            hostname="mail.test",
            tls_context=self._tls,
            require_starttls=self._tls is not None,
            auth_required=self._password is not None,
            authenticator=self._authenticate if self._password is not None else None,
        )
        self._sessions.append(session)
        return session

    def _authenticate(self, *arguments: Any) -> AuthResult:
        given = arguments[-1]
        assert isinstance(given, LoginPassword)
        return AuthResult(success=given.password.decode() == self._password, handled=False)

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's interface
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        answers = {
            "no mailbox": "550 5.1.1 no such user",
            "blocked": "550 5.7.1 blocked by policy",
            "greylist": "450 4.2.0 try again later",
        }
        if self.behave in answers:
            return answers[self.behave]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's interface
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: Any
    ) -> str:
        if self.behave == "bad sender":
            return "550 5.7.1 you may not send"
        envelope.mail_from = address
        return "250 OK"

    async def handle_DATA(  # noqa: N802 - aiosmtpd's interface
        self, server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        self.received.append(envelope.content)
        self.senders.append(envelope.mail_from or "")
        self.recipients += envelope.rcpt_tos
        if self.behave == "hang":
            await asyncio.sleep(60)
        if self.behave == "cut":
            server.transport.abort()
        codes = {"busy": "451 4.3.0", "refuse": "554 5.6.0"}
        return f"{codes.get(self.behave, '250 2.0.0')} {self.said or 'so be it'}"


class _Session(SMTP):
    """A session that can go away in the middle of a message."""

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802 - aiosmtpd's interface
        if self.event_handler.behave == "cut early":
            await self.push("354 go on")
            self.transport.abort()
            return
        await super().smtp_DATA(arg)
