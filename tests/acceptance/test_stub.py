"""`georouter stub` as a council's developer runs it, over a real socket."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.delivery import signing
from tests.support.rows import SECRET

ROOT = Path(__file__).parents[2]
OTHER = signing.new_secret(bytes)
MESSAGE = {"type": "report.created", "data": {"report": {"description": "a [red]deep\x1b hole"}}}


@dataclass
class Running:
    url: str
    process: subprocess.Popen[str]
    said: str

    def post(
        self,
        message: Any = MESSAGE,
        *,
        secret: str = SECRET,
        message_id: str = "m1",
        timeout_s: float = 10.0,
    ) -> httpx.Response:
        body = json.dumps(message).encode()
        headers = signing.headers(
            [secret], message_id=message_id, timestamp=int(time.time()), body=body
        )
        return httpx.post(
            self.url, content=body, headers=headers, timeout=timeout_s, trust_env=False
        )

    def output(self) -> str:
        """All that it has printed; it ends with that."""
        self.process.terminate()
        more, _ = self.process.communicate(timeout=20)
        return self.said + more


def start(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "scripts.cli", "stub", "--port", "0", *options],
        cwd=ROOT,
        env={"PATH": os.defpath, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@contextmanager
def running(*options: str) -> Iterator[Running]:
    process = start(*options)
    try:
        assert process.stdout is not None
        said = ""
        while (address := re.search(r"http://127\.0\.0\.1:\d+/", said)) is None:
            line = process.stdout.readline()
            assert line, said
            said += line
        yield Running(address[0], process, said)
    finally:
        process.kill()
        process.communicate()


def test_it_shows_what_is_signed_and_tells_a_repetition() -> None:
    with running("--secret", SECRET) as stub:
        assert stub.post().status_code == 200
        assert stub.post().status_code == 200
        assert stub.post(message_id="m2").status_code == 200
        said = stub.output()
    assert said.count("seen before") == 1
    assert said.count("signature ok") == 3
    # A stranger's text is shown, and obeyed neither by us nor by the terminal.
    assert "a [red]deep" in said
    assert "\x1b hole" not in said


def test_it_refuses_what_is_not_signed() -> None:
    with running("--secret", SECRET) as stub:
        assert stub.post(secret=OTHER).status_code == 401
        assert httpx.post(stub.url, content=b"{}", trust_env=False).status_code == 401
        assert httpx.get(stub.url, trust_env=False).status_code == 405
        said = stub.output()
    assert "NOT SIGNED BY GEOROUTER: no signature matches" in said
    assert "the header webhook-id is missing" in said
    assert "deep" not in said
    assert SECRET not in said


def test_in_a_rotation_it_takes_both_secrets() -> None:
    with running("--secret", SECRET, "--secret", OTHER) as stub:
        assert stub.post().status_code == 200
        assert stub.post(secret=OTHER).status_code == 200


def test_it_gives_a_challenge_back_however_it_misbehaves() -> None:
    challenge = {"type": "endpoint.challenge", "sequence": 0, "data": {"challenge": "c42"}}
    with running("--secret", SECRET, "--answer", "500") as stub:
        assert stub.post(challenge, secret=OTHER).status_code == 401
        answer = stub.post(challenge)
        assert (answer.status_code, answer.json()) == (200, {"challenge": "c42"})
        assert stub.post().status_code == 500


def test_it_misbehaves_in_turn() -> None:
    with running(
        *("--secret", SECRET, "--answer", "429", "--answer", "cut", "--answer", "lost"),
        *("--answer", "never", "--answer", "drip", "--answer", "409"),
    ) as stub:
        busy = stub.post()
        assert (busy.status_code, busy.headers["retry-after"]) == (429, "60")
        for _ in range(2):
            with pytest.raises(httpx.RemoteProtocolError):
                stub.post()
        for _ in range(2):
            with pytest.raises(httpx.ReadTimeout):
                stub.post(timeout_s=0.5)
        assert stub.post().status_code == 409
        assert stub.post().status_code == 409


def test_without_a_secret_it_says_that_it_checks_nothing() -> None:
    with running() as stub:
        assert stub.post(secret=OTHER).status_code == 200
        said = stub.output()
    assert "NOT checked" in said
    assert "signature not checked" in said


def test_no_message_of_ours() -> None:
    with running() as stub:
        for body in (b"", b"\xff", b"[]", b'{"type": "endpoint.challenge"}'):
            assert httpx.post(stub.url, content=body, trust_env=False).status_code == 200
        assert stub.output().count("no message of ours") == 4


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--answer", "99"], "a status from 200 to 599"),
        (["--answer", "whole"], "a status from 200 to 599"),
        (["--secret", "whsec_c2VjcmV0"], "a signing secret is whsec_"),
    ],
)
def test_what_it_cannot_do(options: list[str], complaint: str) -> None:
    process = start(*options)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert complaint in said
    assert "c2VjcmV0" not in said


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("--port", str(taken.getsockname()[1]))
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "cannot listen on 127.0.0.1" in said
