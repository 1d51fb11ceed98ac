"""The one way out: requests to addresses that strangers chose, without reaching where we must not.

A host is resolved once, refused if any answer is not public, and that very address is dialled, so
that a name cannot change its mind in between; TLS still checks the name. It follows no redirect,
uses no proxy, keeps no cookie, unpacks nothing, bounds time and size, and does not judge answers.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from types import TracebackType
from typing import Any, Self

import httpcore
import httpx

Network = IPv4Network | IPv6Network
# Host and port to addresses, like getaddrinfo; raises OSError
Resolver = Callable[[str, int], Awaitable[Sequence[str]]]

CONNECT_TIMEOUT_S = 5.0
MAX_ANSWER_BYTES = 64 * 1024
# Connections are kept for what follows at once.
KEEPALIVE_S = 5.0
MAX_IDLE = 50
MAX_URL_CHARS = 2000
PORTS = (443, 8443)
# Of a host with many addresses, how many are tried
ADDRESSES_TRIED = 4
# Name servers can hang. The loop's own few threads (four of them under uvloop) would let the names
# of one council hold up everybody's.
RESOLVER_THREADS = 64

# `is_global` differs between patch versions of Python, and it knows nothing of IPv4 addresses in
# the clothes of IPv6; so the list is kept here as well.
_NOT_PUBLIC = tuple(
    ip_network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
        *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # Teredo, ORCHID, benchmarking, documentation, 6to4
        *("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
# Everything else in IPv6 is local, multicast, mapped, translated or not handed out.
_IPV6_UNICAST = IPv6Network("2000::/3")


class EgressRefused(Exception):  # noqa: N818 - reads as the sentence it is
    """An address that nothing is sent to; the message says what is wrong with it."""


class EgressFailed(Exception):  # noqa: N818 - reads as the sentence it is
    """No answer: name, connection, TLS, protocol or time-out. The message says which."""


class NotConnected(EgressFailed):
    """No answer, and certainly nothing sent: there was no connection to send it over."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint answered: header names in lower case, the body cut at `MAX_ANSWER_BYTES`."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def check_url(url: str, allow: Iterable[Network] = ()) -> None:
    """Raise `EgressRefused` for a URL that can be seen to be no good without asking a name server.

    `allow` are networks accepted although they are not public, also over http and at any port.
    """
    networks = tuple(allow)
    parsed = _parse(url)
    address = _literal(parsed)
    # A name may turn out to be in an allowed network: then the connection decides.
    allowed = bool(networks) if address is None else _within(address, networks)
    if address is None and not networks and "." not in parsed.host.rstrip("."):
        raise EgressRefused(f"the host {parsed.host!r} is not a public name")
    if address is not None and not allowed and not _is_public(address):
        raise EgressRefused(f"the host {address} is not a public address")
    if parsed.scheme == "http" and not allowed:
        raise EgressRefused("the address must begin with https://")
    if (parsed.port or 443) not in PORTS and not allowed:
        raise EgressRefused(f"port {parsed.port} is not allowed; use 443 or 8443")


def _parse(url: str) -> httpx.URL:
    if len(url) > MAX_URL_CHARS:
        raise EgressRefused(f"the address is longer than {MAX_URL_CHARS} characters")
    try:
        parsed = httpx.URL(url)
        host = parsed.host
    except (httpx.InvalidURL, UnicodeError) as error:
        raise EgressRefused(f"the address is not a URL: {error}") from None
    if parsed.scheme not in ("http", "https"):
        raise EgressRefused("the address must begin with https://")
    if not host:
        raise EgressRefused("the address names no host")
    if parsed.userinfo:
        raise EgressRefused("the address must not carry a user name or password")
    if not 0 < (parsed.port or 443) < 65536:
        raise EgressRefused(f"port {parsed.port} is not a port")
    return parsed


def _literal(parsed: httpx.URL) -> IPv4Address | IPv6Address | None:
    """The host as an address, if it is one; refuses what only some programs take for one."""
    host = parsed.raw_host.decode("ascii")
    try:
        return ip_address(host)
    except ValueError:
        pass
    labels = host.removesuffix(".").split(".")
    if re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]):
        raise EgressRefused(f"the host {host!r} is a number that is not written as an address")
    if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", label) for label in labels):
        raise EgressRefused(f"the host {host!r} is not a name")
    return None


def _within(address: IPv4Address | IPv6Address, networks: Iterable[Network]) -> bool:
    return any(_plain(address) in network for network in networks)


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    address = _plain(address)
    if isinstance(address, IPv6Address) and address not in _IPV6_UNICAST:
        return False
    return address.is_global and not any(address in network for network in _NOT_PUBLIC)


def _plain(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that an IPv4-mapped IPv6 one stands for."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


class _Guard(httpcore.AsyncNetworkBackend):
    """Opens connections, to addresses that were checked and to no others."""

    def __init__(self, resolve: Resolver, allow: Sequence[Network], *, encrypted: bool) -> None:
        self._dial = httpcore.AnyIOBackend()
        self._resolve = resolve
        self._allow = allow
        self._encrypted = encrypted

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(host, port, local_address, socket_options)
        except TimeoutError:
            raise NotConnected(f"no connection to {host} within {timeout:g} s") from None

    async def _connect(
        self,
        host: str,
        port: int,
        local_address: str | None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise NotConnected(f"the name {host} does not resolve: {error}") from None
        if not addresses:
            raise NotConnected(f"the name {host} has no address")
        for address in addresses:
            self._check(host, address, port)
        failure: httpcore.ConnectError | None = None
        for address in addresses[:ADDRESSES_TRIED]:
            try:
                return _Connection(
                    await self._dial.connect_tcp(address, port, None, local_address, socket_options)
                )
            except httpcore.ConnectError as error:
                failure = error
        raise NotConnected(f"no connection to {host}: {failure}")

    def _check(self, host: str, address: str, port: int) -> None:
        parsed = ip_address(address)
        if _within(parsed, self._allow):
            return
        if not _is_public(parsed):
            raise EgressRefused(f"{host} resolves to {address}, which is not a public address")
        if not self._encrypted:
            raise EgressRefused("the address must begin with https://")
        if port not in PORTS:
            raise EgressRefused(f"port {port} is not allowed; use 443 or 8443")


class _Connection(httpcore.AsyncNetworkStream):
    """A connection that is closed too when the time-out strikes in the middle of TLS.

    httpcore's own is closed when TLS fails, but not when it is cancelled, and then stays open until
    it is collected: an endpoint that accepts and says nothing would use up our sockets.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(
        self,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> bytes:
        return await self._inner.read(max_bytes, timeout)

    async def write(
        self,
        buffer: bytes,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> None:
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
    ) -> httpcore.AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except BaseException:
            await self._inner.aclose()
            raise


class _Transport(httpx.AsyncBaseTransport):
    """httpx over single connections of httpcore, kept open for a while after use.

    Not over httpcore's pool, which cannot be given through httpx and looks at every connection
    whenever one is taken or returned: with fifty in use that is two thirds of all the CPU.
    """

    def __init__(self, guard: _Guard, tls: ssl.SSLContext) -> None:
        self._guard = guard
        self._tls = tls
        self._idle: list[httpcore.AsyncHTTPConnection] = []  # the longest idle first

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = httpcore.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        )
        connection = await self._take(url.origin)
        try:
            answer = await connection.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except BaseException:
            await connection.aclose()
            raise
        if not isinstance(answer.stream, AsyncIterable):
            raise TypeError("an asynchronous connection gives asynchronous streams")
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream, lambda: self._give_back(connection)),
            extensions=answer.extensions,
        )

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        for n in reversed(range(len(self._idle))):
            if self._idle[n].can_handle_request(origin):
                connection = self._idle.pop(n)
                # Expired is also one that the other side has closed.
                if not connection.has_expired():
                    return connection
                await connection.aclose()
                break
        return httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=self._tls,
            keepalive_expiry=KEEPALIVE_S,
            network_backend=self._guard,
        )

    async def _give_back(self, connection: httpcore.AsyncHTTPConnection) -> None:
        if not connection.is_idle():
            await connection.aclose()
            return
        self._idle.append(connection)
        while self._idle and (len(self._idle) > MAX_IDLE or self._idle[0].has_expired()):
            await self._idle.pop(0).aclose()

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()


class _Body(httpx.AsyncByteStream):
    """httpcore's stream of an answer, as httpx wants it; `after` is called when it is closed."""

    def __init__(self, stream: AsyncIterable[bytes], after: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._after = after

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        close = getattr(self._stream, "aclose", None)
        try:
            if close is not None:
                await close()
        finally:
            await self._after()


class Egress:
    """The HTTP client. One per process, used as `async with Egress(...) as egress`."""

    def __init__(
        self,
        *,
        allow: Sequence[Network] = (),
        timeout_s: float,
        resolve: Resolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow = tuple(allow)
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")
        resolve = resolve or self._ask_system
        tls = tls or httpx.create_ssl_context(trust_env=False)
        self._client = httpx.AsyncClient(
            mounts={
                "https://": _Transport(_Guard(resolve, self._allow, encrypted=True), tls),
                "http://": _Transport(_Guard(resolve, self._allow, encrypted=False), tls),
            },
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            # Unpacked, 64 KiB can be gigabytes: ask for nothing packed, and unpack nothing.
            headers={"user-agent": "georouter", "accept": "*/*", "accept-encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.__aexit__(kind, error, trace)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """POST `body` and read the answer, all within the time-out.

        Raises `EgressRefused` before anything is sent, `EgressFailed` when there is no answer. The
        endpoint may have the message then all the same.
        """
        return await self._exchange("POST", url, body, headers, MAX_ANSWER_BYTES)

    async def get(
        self, url: str, headers: Mapping[str, str], *, max_bytes: int = MAX_ANSWER_BYTES
    ) -> Answer:
        """GET, as `post`; the answer's body is cut at `max_bytes`."""
        return await self._exchange("GET", url, None, headers, max_bytes)

    async def _exchange(
        self,
        method: str,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str],
        max_bytes: int,
    ) -> Answer:
        check_url(url, self._allow)
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._client.stream(method, url, content=body, headers=dict(headers)) as answer,
            ):
                start = bytearray()
                async for part in answer.aiter_raw():
                    start += part
                    if len(start) >= max_bytes:
                        break
                return Answer(answer.status_code, dict(answer.headers), bytes(start[:max_bytes]))
        except (TimeoutError, httpcore.TimeoutException):
            raise EgressFailed(f"no complete answer within {self._timeout_s:g} s") from None
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise EgressFailed(f"{type(error).__name__}: {error}".removesuffix(": ")) from error

    async def _ask_system(self, host: str, port: int) -> list[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return [str(address[0]) for *_, address in found]
