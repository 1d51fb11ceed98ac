from __future__ import annotations

import asyncio
import gc
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import closing, suppress
from ipaddress import ip_network

import httpx
import pytest

from api.delivery import egress
from api.delivery.egress import Egress, EgressFailed, EgressRefused
from tests.support.stub_authority import Answer, Received, StubAuthority

LOCAL = [ip_network("127.0.0.0/8")]


@pytest.fixture
async def stub() -> AsyncIterator[StubAuthority]:
    async with StubAuthority() as stub:
        yield stub


def local(*, timeout_s: float = 2.0) -> Egress:
    """One that may reach the stub."""
    return Egress(allow=LOCAL, timeout_s=timeout_s)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://127.0.0.1/", "not a public address"),
        ("https://127.1.2.3:8443/", "not a public address"),
        ("https://10.1.2.3/", "not a public address"),
        ("https://172.16.0.1/", "not a public address"),
        ("https://192.168.0.1/", "not a public address"),
        ("https://169.254.169.254/latest/meta-data/", "not a public address"),
        ("https://100.64.0.1/", "not a public address"),
        ("https://0.0.0.0/", "not a public address"),
        ("https://255.255.255.255/", "not a public address"),
        ("https://224.0.0.1/", "not a public address"),
        ("https://[::1]/", "not a public address"),
        ("https://[::]/", "not a public address"),
        ("https://[::ffff:127.0.0.1]/", "not a public address"),
        ("https://[::127.0.0.1]/", "not a public address"),
        ("https://[64:ff9b::7f00:1]/", "not a public address"),
        ("https://[2002:7f00:1::]/", "not a public address"),
        ("https://[2001:0:7f00:1::]/", "not a public address"),
        ("https://[fe80::1]/", "not a public address"),
        ("https://[fd00:ec2::254]/", "not a public address"),
        ("https://[fec0::1]/", "not a public address"),
        ("https://[ff02::1]/", "not a public address"),
        ("https://2130706433/", "a number"),
        ("https://0x7f000001/", "a number"),
        ("https://0x7f.1/", "a number"),
        ("https://0177.0.0.1/", "not a URL"),
        ("https://127.1/", "a number"),
        ("https://127.0.0.1./", "a number"),
        ("https://council.example.0x7f/", "a number"),
        ("https://\uff11\uff12\uff17.0.0.1/", "not a URL"),
        ("https://localhost/", "not a public name"),
        ("https://council.example%2e/", "not a name"),
        ("https://council..example/", "not a name"),
        ("https:///intake", "names no host"),
        ("https://user:word@council.example/", "user name"),
        ("http://council.example/", "begin with https"),
        ("http://8.8.8.8/", "begin with https"),
        ("ftp://council.example/", "begin with https"),
        ("file:///etc/passwd", "begin with https"),
        ("council.example/intake", "begin with https"),
        ("https://council.example:22/", "port 22"),
        ("https://council.example:99999/", "port 99999"),
        ("https://council.example/\n", "not a URL"),
        ("https://council.example/" + "x" * 2000, "longer than"),
        ("", "begin with https"),
    ],
)
def test_refused_on_sight(url: str, problem: str) -> None:
    with pytest.raises(EgressRefused, match=problem):
        egress.check_url(url)


async def test_what_is_refused_on_sight_is_not_sent(stub: StubAuthority) -> None:
    async with Egress(timeout_s=1.0) as client:
        for url in (
            stub.url(),
            f"https://127.0.0.1:{stub.port}/",
            f"http://2130706433:{stub.port}",
        ):
            with pytest.raises(EgressRefused):
                await client.post(url, b"", {})
    assert stub.connections == 0


@pytest.mark.parametrize(
    "url",
    [
        "https://council.example/intake?key=1",
        "https://council.example:8443/",
        "https://COUNCIL.example.:443/",
        "https://täst.example/",
        "https://8.8.8.8/",
        "https://[2a00:1450:4009:81f::200e]/",
    ],
)
def test_accepted_on_sight(url: str) -> None:
    egress.check_url(url)


def test_an_allowed_network_may_have_http_and_any_port() -> None:
    for url in ("http://127.0.0.1:9000/", "https://127.0.0.1:22/", "http://localhost:9000/"):
        egress.check_url(url, allow=LOCAL)
    for url in ("http://10.0.0.1/", "https://[::1]/", "http://8.8.8.8/", "https://8.8.8.8:22/"):
        with pytest.raises(EgressRefused):
            egress.check_url(url, allow=LOCAL)
    with pytest.raises(EgressRefused, match="a number"):
        egress.check_url("http://2130706433/", allow=LOCAL)


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        ["fe80::1%lo"],
        # one bad one among good ones: which is dialled may be up to chance
        ["93.184.215.14", "127.0.0.1"],
        ["127.0.0.1", "93.184.215.14"],
    ],
)
async def test_a_name_that_resolves_inwards_opens_no_connection(
    addresses: list[str], stub: StubAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        return addresses

    monkeypatch.setattr(egress, "PORTS", (stub.port,))
    async with Egress(timeout_s=1.0, resolve=resolve) as client:
        with pytest.raises(EgressRefused, match="not a public address"):
            await client.post(f"https://council.example:{stub.port}/", b"{}", {})
    assert stub.connections == 0


# Ways to write this machine, its network's neighbours and the metadata services of clouds
INWARD = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104 - nobody listens here; it is dialled
    "10.0.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "192.0.0.192",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:169.254.169.254]",
    "[::ffff:0:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::1]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:7f00:1::]",
    "[fe80::1]",
    "[fe80::a9fe:a9fe]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "127.1",
    "127.0.1",
    "0",
    "127.0.0.1.",
    "localhost",
]


@pytest.mark.parametrize("host", INWARD)
async def test_no_way_to_write_an_inward_host_opens_a_connection(
    host: str, stub: StubAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With the system's own name service and the stub's port among those allowed: only the guard is
    # between the two. Those refused on sight are tried behind that check as well.
    monkeypatch.setattr(egress, "PORTS", (stub.port,))
    async with Egress(timeout_s=2.0) as client:
        for scheme in ("https", "http"):
            url = f"{scheme}://{host}:{stub.port}/"
            with pytest.raises(EgressRefused):
                await client.post(url, b"{}", {})
            with monkeypatch.context() as patched:
                patched.setattr(egress, "check_url", lambda *_: None)
                with pytest.raises((EgressRefused, EgressFailed, httpx.InvalidURL)):
                    await client.post(url, b"{}", {})
    assert stub.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_the_same_hosts_are_reached_where_that_is_allowed(
    host: str, stub: StubAuthority
) -> None:
    allow = [*LOCAL, ip_network("::1/128")]
    async with Egress(allow=allow, timeout_s=2.0) as client:
        assert (await client.post(f"http://{host}:{stub.port}/", b"{}", {})).status == 200
    assert stub.connections == 1


@pytest.mark.parametrize("address", [host.strip("[]") for host in INWARD[:25]])
async def test_a_name_that_is_repointed_inwards_is_refused(
    address: str, stub: StubAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def rebind(_host: str, _port: int) -> list[str]:
        """Allowed the first time, and elsewhere from then on."""
        nonlocal asked
        asked += 1
        return ["127.0.0.2"] if asked == 1 else [address]

    monkeypatch.setattr(egress, "KEEPALIVE_S", 0.0)
    allow = [ip_network("127.0.0.2/32")]
    async with StubAuthority("127.0.0.2") as first:
        url = f"http://council.example:{first.port}/intake"
        async with Egress(allow=allow, timeout_s=2.0, resolve=rebind) as client:
            # The answer that was checked is the one dialled: nothing is asked twice.
            assert (await client.post(url, b"{}", {})).status == 200
            assert asked == 1
            with pytest.raises(EgressRefused, match="not a public address"):
                await client.post(url.replace(str(first.port), str(stub.port)), b"{}", {})
    assert stub.connections == 0


async def test_connections_are_used_again_but_not_once_they_are_closed() -> None:
    connections = 0

    async def three_each(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with closing(writer), suppress(asyncio.IncompleteReadError, OSError):
            for _ in range(3):
                await reader.readuntil(b"body")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with await asyncio.start_server(three_each, "127.0.0.1", 0) as server, local() as client:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for expected in (1, 1, 1, 2, 2, 2):
            assert (await client.post(url, b"body", {})).body == b"ok"
            assert connections == expected
            await asyncio.sleep(0.02)
        # Of many at the same time, some are kept.
        await asyncio.gather(*(client.post(url, b"body", {}) for _ in range(egress.MAX_IDLE + 10)))
        before = connections
        await asyncio.gather(*(client.post(url, b"body", {}) for _ in range(egress.MAX_IDLE)))
        assert connections <= before + 1
    gc.collect()  # which would tell of a connection left open


async def test_a_name_in_an_allowed_network_must_be_there_wholly(stub: StubAuthority) -> None:
    answers: list[list[str]] = [["127.0.0.1"], ["127.0.0.1", "93.184.215.14"], ["10.0.0.1"]]

    async def resolve(_host: str, _port: int) -> list[str]:
        return answers.pop(0)

    url = f"http://council.example:{stub.port}/intake"
    async with Egress(allow=LOCAL, timeout_s=2.0, resolve=resolve) as client:
        assert (await client.post(url, b"{}", {})).status == 200
        # plain http to a public address
        with pytest.raises(EgressRefused, match="begin with https"):
            await client.post(url, b"{}", {})
        with pytest.raises(EgressRefused, match="not a public address"):
            await client.post(url, b"{}", {})
    assert stub.connections == 1
    # The name, not the address, is what the server is asked for.
    assert stub.received[0].headers["host"] == f"council.example:{stub.port}"


async def test_what_is_sent_and_what_comes_back(stub: StubAuthority) -> None:
    stub.answer("/intake", Answer(201, b'{"reference": "A"}', {"X-One": "1", "Set-Cookie": "a=b"}))
    async with local() as client:
        for _ in range(2):
            answer = await client.post(stub.url(), b"\x00body", {"webhook-id": "7"})
    assert (answer.status, answer.body) == (201, b'{"reference": "A"}')
    assert answer.headers["x-one"] == "1"
    request = stub.received[1]
    assert (request.method, request.body) == ("POST", b"\x00body")
    assert request.headers["webhook-id"] == "7"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["user-agent"] == "georouter"
    assert "cookie" not in request.headers


async def test_redirects_are_not_followed(stub: StubAuthority) -> None:
    stub.answer("/intake", Answer(307, b"", {"location": stub.url("/other")}))
    async with local() as client:
        assert (await client.post(stub.url(), b"", {})).status == 307
    assert len(stub.received) == 1


async def test_no_proxy_is_asked(stub: StubAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with local() as client:
        assert (await client.post(stub.url(), b"", {})).status == 200


async def test_an_answer_is_read_to_64_kib_and_not_unpacked(stub: StubAuthority) -> None:
    async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    bomb = gzip.compress(b"0" * 50_000_000)
    stub.answer("/endless", endless)
    stub.answer("/bomb", Answer(200, bomb, {"content-encoding": "gzip"}))
    async with local() as client:
        answer = await client.post(stub.url("/endless"), b"", {})
        assert (answer.status, answer.body) == (200, b"x" * 65536)
        assert (await client.post(stub.url("/bomb"), b"", {})).body == bomb[:65536]


async def test_time_is_bounded_as_a_whole(stub: StubAuthority) -> None:
    stub.answer("/never", Answer(delay_s=60))
    stub.answer("/drip", Answer(200, b"x" * 100, drip_s=0.05))
    async with local(timeout_s=0.3) as client:
        for path in ("/never", "/drip"):
            start = time.monotonic()
            with pytest.raises(EgressFailed, match=r"no complete answer within 0\.3 s"):
                await client.post(stub.url(path), b"", {})
            assert time.monotonic() - start < 2


async def test_a_name_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_host: str, _port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    monkeypatch.setattr(egress, "CONNECT_TIMEOUT_S", 0.1)
    async with Egress(timeout_s=5.0, resolve=resolve) as client:
        with pytest.raises(EgressFailed, match=r"no connection to council.example within 0\.1 s"):
            await client.post("https://council.example/", b"", {})


async def test_failures_of_the_network_are_one_error(stub: StubAuthority) -> None:
    async def nonsense(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n\r\n")

    async def short(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")

    stub.answer("/cut", Answer(cut=True))
    stub.answer("/nonsense", nonsense)
    stub.answer("/short", short)
    async with local() as client:
        for path in ("/cut", "/nonsense", "/short"):
            with pytest.raises(EgressFailed, match="RemoteProtocolError"):
                await client.post(stub.url(path), b"", {})
        with pytest.raises(EgressFailed, match=r"no connection to 127\.0\.0\.1"):
            await client.post("http://127.0.0.1:1/", b"", {})


async def test_tls_that_fails_or_never_comes(stub: StubAuthority) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with local() as client:
            with pytest.raises(EgressFailed, match="SSL"):
                await client.post(f"https://127.0.0.1:{port}/", b"", {})
    # The stub waits for a request, in plain text, and the client for TLS.
    async with local(timeout_s=0.2) as client:
        with pytest.raises(EgressFailed, match="no complete answer"):
            await client.post(f"https://127.0.0.1:{stub.port}/", b"", {})
        gc.collect()  # which would tell of a connection left open


async def test_a_name_that_does_not_resolve() -> None:
    async def resolve(host: str, _port: int) -> list[str]:
        raise OSError(f"no such name {host}")

    async def empty(_host: str, _port: int) -> list[str]:
        return []

    for resolver in (resolve, empty):
        async with Egress(timeout_s=1.0, resolve=resolver) as client:
            with pytest.raises(EgressFailed, match="the name council"):
                await client.post("https://council.example/", b"", {})
