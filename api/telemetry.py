"""Log lines and the correlation id that ties them to one request.

Every request has an id, the client's `X-Request-Id` where that is sane, else one of ours; it is
echoed, bound to every log line made while the request runs, and shown in every 5xx. Lines carry
route templates and ids only: no coordinates, descriptions, addresses or keys. What libraries and
the event loop have to say, such as asyncpg in an outage, comes out in the same form.
"""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
# The key in the request's scope under which the rest of the application finds the id.
CORRELATION_KEY = "georouter.correlation_id"
SANE = re.compile(r"[A-Za-z0-9._\-]{1,64}")
# Asked twice a second by some orchestrators, or scraped, and saying nothing new.
UNLOGGED = frozenset({"/healthz", "/metrics", "/readyz"})
MAX_FRAMES = 12
MAX_SAID = 200

log = structlog.get_logger()


def configure() -> None:
    """Log to standard error, one JSON object per line. May be called again."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _describe_exception,
            structlog.processors.JSONRenderer(),
        ],
        # asked anew for each line: what standard error is may change
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    root = logging.getLogger()
    root.handlers[:] = [*(one for one in root.handlers if not isinstance(one, _Lines)), _Lines()]


class _Lines(logging.Handler):
    """Has libraries' warnings and errors logged as everything else is.

    Of what they say the first line, without what is in parentheses: the event loop quotes the
    arguments of a callback there, and tells of the rest of its state below.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().partition("\n")[0]
        tell = log.error if record.levelno >= logging.ERROR else log.warning
        tell(
            "library",
            logger=record.name,
            said=re.sub(r"\(.*\)", "(...)", said)[:MAX_SAID],
            exc_info=record.exc_info[1] if record.exc_info else None,
        )


def _describe_exception(
    _logger: object, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replace `exc_info` by the chain of exception types and where each was raised.

    Without messages and local variables on purpose: those of a database or a validation error quote
    what was sent, and what a citizen wrote does not belong in a log.
    """
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()[1]
    chain = []
    while isinstance(error, BaseException):
        frames = traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]
        link: dict[str, Any] = {
            "type": f"{type(error).__module__}.{type(error).__qualname__}",
            "at": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames],
        }
        for fact in ("sqlstate", "constraint_name"):
            if isinstance(value := getattr(error, fact, None), str):
                link[fact] = value
        chain.append(link)
        error = error.__cause__ or error.__context__
    if chain:
        event["exception"] = chain
    return event


class Correlation:
    """ASGI middleware: gives each request its id and its log line, and answers for what escapes.

    An exception that nothing else has handled ends here: it is logged once, with its traceback,
    and rendered by `on_error`, so that even then the answer carries the id.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        on_error: Callable[[Mapping[str, Any], Exception], Response],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.app = app
        self.on_error = on_error
        self.random_bytes = random_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        correlation_id = given if SANE.fullmatch(given) else self.random_bytes(16).hex()
        scope[CORRELATION_KEY] = correlation_id
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = correlation_id
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(correlation_id=correlation_id):
            try:
                await self.app(scope, receive, send_with_id)
            except Exception as error:
                log.exception("request failed", method=scope["method"], route=_route(scope))
                if status:
                    raise  # the answer has begun; only breaking it off tells the client
                await self.on_error(scope, error)(scope, receive, send_with_id)
            finally:
                if scope["path"] not in UNLOGGED:
                    log.info(
                        "request",
                        method=scope["method"],
                        route=_route(scope),
                        status=status,
                        duration_ms=round((time.perf_counter() - started) * 1000, 1),
                    )


def _route(scope: Scope) -> str:
    """The template of the route, never the path: what a client puts into a path is its own."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "(none)"
