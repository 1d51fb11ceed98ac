"""Asks a publisher's service over HTTP, patiently: waits, tries again, goes on after a cut.

TLS is verified, nothing is taken from the environment, no redirect leads out of TLS, and sizes are
bounded. Promises an answer or a `RemoteError` of one sentence that names the service. What answers
mean is the drivers' affair.
"""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx

from boundaries.cache import write_json

T = TypeVar("T")

USER_AGENT: Final = f"georouter/{version('georouter')} (fetches boundary data)"
MOST_ANSWER_BYTES: Final = 512 << 20
MOST_REDIRECTS: Final = 5
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class RemoteError(Exception):
    """A service that does not give what it should; the message says which and what is wrong."""


class PassingError(RemoteError):
    """A fault that may be over in a moment; the service may have said in how many seconds."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for a service, and how often it is asked again."""

    timeout_s: float = 60.0
    """For a connection, and between two pieces of an answer."""
    answer_s: float = 600.0
    """For an answer; a file may take longer."""
    tries: int = 5
    first_wait_s: float = 1.0
    """Before the second try; before each further one it is twice as long."""
    longest_wait_s: float = 120.0
    """A service that wants a longer one is given up for now."""
    sleep: Callable[[float], None] = time.sleep


class Remote:
    """Used as `with Remote() as remote`. `tls` is for services that certify themselves."""

    def __init__(
        self, patience: Patience | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.patience = patience or Patience()
        self._client = httpx.Client(
            verify=tls or httpx.create_ssl_context(trust_env=False),
            trust_env=False,
            follow_redirects=True,
            max_redirects=MOST_REDIRECTS,
            timeout=self.patience.timeout_s,
            headers={"User-Agent": USER_AGENT},
            event_hooks={"request": [_refuse_in_the_clear]},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def read(self, url: str, parse: Callable[[bytes], T], params: Mapping[str, Any]) -> T:
        """What `parse` makes of the answer. It may raise `PassingError` to have it asked again."""
        return self._patiently(lambda: parse(self._body(url, params)))

    def last_modified(self, url: str) -> datetime | None:
        """When a file was changed, if its server says so."""

        def ask() -> datetime | None:
            with _translated(url):
                response = self._client.head(url, extensions=_begun_at(url))
            if response.status_code in {405, 501}:
                return None
            _check_status(response)
            return _moment(response.headers.get("last-modified"))

        return self._patiently(ask)

    def download(
        self,
        url: str,
        part: Path,
        *,
        most_bytes: int,
        progress: Callable[[float], None] = lambda _share: None,
    ) -> None:
        """Make the file `part` whole, going on after what is there of it if it is the same file."""
        self._patiently(lambda: self._download(url, part, most_bytes, progress))

    def _body(self, url: str, params: Mapping[str, Any]) -> bytes:
        began = time.monotonic()
        pieces, size = [], 0
        with _translated(url), self._stream(url, params=params) as response:
            _check_status(response)
            for piece in response.iter_bytes():
                pieces.append(piece)
                size += len(piece)
                if size > MOST_ANSWER_BYTES:
                    raise RemoteError(
                        f"{url} answers with more than {MOST_ANSWER_BYTES >> 20} MB; "
                        "give its source a smaller page_size"
                    )
                if time.monotonic() - began > self.patience.answer_s:
                    raise PassingError(f"{url} took longer than {self.patience.answer_s:.0f} s")
        return b"".join(pieces)

    def _download(
        self, url: str, part: Path, most_bytes: int, progress: Callable[[float], None]
    ) -> None:
        note = part.with_name(f"{part.name}.of.json")
        have, headers = _so_far(url, part, note)
        with (
            _translated(url),
            self._stream(url, headers={"Accept-Encoding": "identity", **headers}) as response,
        ):
            if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
                if response.headers.get("content-range") == f"bytes */{have}":
                    return  # it was whole already
                part.unlink()
                raise PassingError(f"{url} has changed")
            _check_status(response)
            if response.headers.get("content-encoding", "identity") != "identity":
                raise RemoteError(f"{url} is packed on the way although that was not asked for")
            if not response.headers.keys() & {"content-length", "transfer-encoding"}:
                raise RemoteError(f"{url} does not say how long it is, so a cut would go unnoticed")
            start = response.headers.get("content-range", "").partition("-")[0]
            if response.status_code != HTTPStatus.PARTIAL_CONTENT:
                have = 0
                part.unlink(missing_ok=True)
                write_json(note, {"url": url, "validator": _validator(response)})
            elif start != f"bytes {have}":
                part.unlink(missing_ok=True)
                raise PassingError(f"{url} does not give the part that was asked for")
            total = have + int(response.headers.get("content-length") or 0)
            with part.open("ab") as file:
                for piece in response.iter_raw():
                    file.write(piece)
                    have += len(piece)
                    if max(have, total) > most_bytes:
                        part.unlink()
                        raise RemoteError(
                            f"{url} is larger than {most_bytes:,} bytes; nothing that large is "
                            "expected there"
                        )
                    progress(have / total if total else 0.0)

    def _stream(self, url: str, **options: Any) -> AbstractContextManager[httpx.Response]:
        return self._client.stream("GET", url, extensions=_begun_at(url), **options)

    def _patiently(self, once: Callable[[], T]) -> T:
        patience = self.patience
        for tried in count(1):
            try:
                return once()
            except PassingError as error:
                wait_s = patience.first_wait_s * 2 ** (tried - 1)
                if error.retry_after_s is not None:
                    wait_s = error.retry_after_s
                if wait_s > patience.longest_wait_s:
                    raise RemoteError(
                        f"{error}; it wants to be left alone {wait_s:.0f} s"
                    ) from None
                if tried >= patience.tries:
                    raise RemoteError(f"{error}; tried {tried} times") from None
                patience.sleep(wait_s)
        raise AssertionError  # the loop has no end


def is_safe(url: str) -> bool:
    """Whether data may be fetched from there: over TLS, or from this very machine."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return False
    return bool(parsed.host) and (
        parsed.scheme == "https" or (parsed.scheme == "http" and parsed.host in _LOOPBACK)
    )


def parse_json(url: str) -> Callable[[bytes], Any]:
    """A parser for `Remote.read`: what is no JSON is mostly a page that says to try again later."""

    def parse(body: bytes) -> Any:
        try:
            return json.loads(body)
        except ValueError:
            begin = body[:60].decode("utf-8", "replace")
            raise PassingError(f"{url} answers {begin!r}, which is no JSON") from None

    return parse


def one_line(error: Exception) -> str:
    """An exception's message, fit for a sentence."""
    return " ".join(str(error).split())[:200] or type(error).__name__


# --- one request ----------------------------------------------------------------------------------


def _begun_at(url: str) -> dict[str, Any]:
    """What a request takes along over redirects."""
    return {"begun_in_the_clear": url.startswith("http:")}


def _refuse_in_the_clear(request: httpx.Request) -> None:
    """Called for each request, those that follow redirects among them."""
    over_tls = request.url.scheme == "https"
    ours = request.extensions.get("begun_in_the_clear") and is_safe(str(request.url))
    if not (over_tls or ours):
        raise RemoteError(f"{request.url} is not over TLS; nothing is fetched from there")


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.UnsupportedProtocol as error:
        raise RemoteError(f"{url}: {one_line(error)}") from None
    except httpx.TransportError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise RemoteError(
                    f"{url}: the certificate is not to be trusted ({cause.verify_message}); "
                    "nothing was fetched"
                ) from None
            cause = cause.__cause__ or cause.__context__
        raise PassingError(f"{url}: {one_line(error)}") from None
    except httpx.HTTPError as error:
        raise RemoteError(f"{url}: {one_line(error)}") from None


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    said = f"{response.url.copy_with(query=None)} answers {status} {response.reason_phrase}".strip()
    if status in _PASSING:
        raise PassingError(said, retry_after_s=_retry_after_s(response))
    if not response.is_success:
        raise RemoteError(f"{said}; see whether the catalogue has the right address")


def _retry_after_s(response: httpx.Response) -> float | None:
    value = response.headers.get("retry-after", "")
    if value.isdigit():
        return float(value)
    until = _moment(value)
    # its clock may be another than ours, so its own date is what counts
    now = _moment(response.headers.get("date"))
    return max(0.0, (until - now).total_seconds()) if until and now else None


def _moment(value: str | None) -> datetime | None:
    try:
        found = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _so_far(url: str, part: Path, note: Path) -> tuple[int, dict[str, str]]:
    """How much of a file is there, and the headers that ask for the rest of the very same one."""
    try:
        have = part.stat().st_size
        of = json.loads(note.read_bytes())
    except (FileNotFoundError, ValueError):
        return 0, {}
    if not have or of["url"] != url or not of["validator"]:
        return 0, {}
    return have, {"Range": f"bytes={have}-", "If-Range": of["validator"]}


def _validator(response: httpx.Response) -> str | None:
    """What tells one file from another under the same URL; a weak tag does not tell bytes."""
    etag: str = response.headers.get("etag", "")
    return etag if etag.startswith('"') else response.headers.get("last-modified")
