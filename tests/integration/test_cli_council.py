"""`georouter council` as a council runs it: against the service, and what it makes of refusals."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import uvicorn

from api import db
from api.delivery import outbox
from api.delivery.policy import Next, Rejected
from tests.support.app import INTAKE, SHIRE, WEST, Api
from tests.support.stub_authority import Answer, StubAuthority

ROOT = Path(__file__).parents[2]
Run = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]
ID = UUID(int=7)


async def run(
    *arguments: str, url: str, key: str = "grk_x", authority: str = WEST, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """The command as another process, with nothing of ours in its environment but these."""
    mine = os.environ.items()  # noqa: TID251 - the user's own, so that PATH and HOME are real
    environment = {name: value for name, value in mine if not name.startswith("GEOROUTER_")}
    settings = {"URL": url, "KEY": key, "AUTHORITY": authority}
    environment |= {f"GEOROUTER_{name}": value for name, value in settings.items() if value}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "scripts.cli", "council", *arguments],
        cwd=ROOT,
        env=environment,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
async def council(api: Api) -> AsyncIterator[Run]:
    """The command of West's council, with the service on a socket."""
    server = uvicorn.Server(uvicorn.Config(api.app, log_config=None, lifespan="off"))
    # Open before it serves: who comes early waits.
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]

        async def started(*arguments: str, **given: Any) -> subprocess.CompletedProcess[str]:
            given = {"key": api.keys["council"], "url": f"http://127.0.0.1:{port}", **given}
            return await run(*arguments, **given)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listening]))
            yield started
            server.should_exit = True


def ok(done: subprocess.CompletedProcess[str]) -> Any:
    """What it printed as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def test_an_intake_from_the_command_line(council: Run) -> None:
    empty = await council("endpoints", "list")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "there is none\n")
    made = await council(
        *("endpoints", "register", "--channel", "webhook", "--address", INTAKE), "--fallback"
    )
    assert made.returncode == 0
    assert "whsec_" in made.stdout
    assert "keep the secret" in made.stderr
    config = json.dumps({"api_key": "theirs", "default_service": "GENERAL"})
    second = ok(
        await council(
            *("endpoints", "register", "--channel", "open311", "--address", INTAKE + "/v2"),
            *("--config", "-", "--json"),
            stdin=config,
        )
    )
    assert second["config"] == {"default_service": "GENERAL"}
    [first, listed] = ok(await council("endpoints", "list", "--json"))
    assert (first["fallback"], listed["id"]) == (True, second["id"])
    table = (await council("endpoints", "list")).stdout.splitlines()
    assert table[0].split() == ["id", "channel", "url", "state", "fallback", "created_at"]
    assert table[1].split()[:3] == [first["id"], "webhook", INTAKE]
    assert len(table) == 3
    health = await council("endpoints", "health", second["id"])
    assert ["waiting", "0"] in [line.split() for line in health.stdout.splitlines()]
    gone = await council("endpoints", "delete", first["id"])
    assert (gone.returncode, gone.stderr) == (0, "deleted\n")
    again = await council("endpoints", "delete", first["id"])
    assert again.returncode == 4
    assert again.stderr == (
        "georouter: There is no such thing: the authority has no such endpoint\n"
    )


async def dead_deliveries(api: Api, count: int) -> list[str]:
    await api.register(WEST)
    for n in range(count):
        await api.post_report(description=f"hole {n}")
    async with db.acquire(api.pool) as conn:
        claimed = await outbox.claim(conn, worker=1, limit=9, lease_s=60, per_endpoint=9)
        for one in claimed:
            why = Rejected(status=400, why="answered 400")
            assert await outbox.settle(conn, one, why, Next("dead"))
    return [str(one.delivery_id) for one in claimed]


async def test_dead_letters_from_the_command_line(api: Api, council: Run) -> None:
    dead = await dead_deliveries(api, 3)
    listed = ok(await council("deliveries", "list", "--state", "dead", "--json"))
    assert {one["id"] for one in listed} == set(dead)
    table = (await council("deliveries", "list", "--state", "dead", "--limit", "2")).stdout
    assert len(table.splitlines()) == 3
    assert table.count("answered 400") == 2
    assert ok(await council("deliveries", "redeliver", dead[0], "--json"))["state"] == "pending"
    busy = await council("deliveries", "redeliver", dead[0])
    assert (busy.returncode, busy.stdout) == (5, "")
    assert busy.stderr == (
        "georouter: The delivery cannot be sent again: it is on its way already\n"
    )
    span = ("--from", "2020-01-01", "--to", "2120-01-01T00:00:00+01:00")
    many = await council("deliveries", "redeliver", *span)
    assert (many.returncode, many.stderr) == (0, "2 on their way again\n")
    assert ok(await council("deliveries", "redeliver", *span, "--json"))["count"] == 0
    audit = ok(await council("audit", "--json", "--limit", "2"))
    assert [one["action"] for one in audit] == ["deliveries.redelivered", "delivery.redelivered"]
    assert "delivery.redelivered" in (await council("audit")).stdout


async def test_updates_from_the_command_line(api: Api, council: Run) -> None:
    report = (await api.post_report()).json()["id"]
    told = ok(
        await council(
            *("updates", "post", report, "--state", "closed", "--reason", "duplicate"),
            *("--note", "Known\nto us", "--update-id", "7", "--json"),
        )
    )
    assert (told["state"], told["note"]) == ("closed", "Known\nto us")
    plain = await council(
        *("updates", "post", report, "--state", "planned", "--expected-on", "2027-04-01")
    )
    assert (plain.returncode, plain.stderr) == (0, "noted as event 3 of the report\n")
    wrong = await council("updates", "post", report, "--state", "closed")
    assert wrong.returncode == 2
    assert "closed needs a reason" in wrong.stderr
    assert wrong.stderr.count("\n") == 1


async def test_refusals(council: Run) -> None:
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"key": "grk_" + "x" * 43}, 2, "The API key is not known"),
        ({"key": "grk_é"}, 2, "--key an API key"),
        ({"key": ""}, 2, "give --key, or set GEOROUTER_KEY"),
        ({"authority": SHIRE}, 2, "The API key does not allow this"),
        ({"authority": "X99"}, 4, "no authority has the code 'X99'"),
        ({"url": "http://127.0.0.1:9"}, 6, "http://127.0.0.1:9: "),
        ({"url": "georouter.example"}, 2, "--url takes the service's address"),
    ]
    for given, code, message in cases:
        done = await council("endpoints", "list", **given)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
    for arguments in (
        ("deliveries", "redeliver"),
        ("deliveries", "redeliver", str(ID), "--from", "2026-01-01"),
        ("deliveries", "redeliver", "--from", "2026-01-01"),
        ("endpoints", "health", "x"),
        ("deliveries", "list", "--state", "lost"),
    ):
        assert (await council(*arguments)).returncode == 2


async def test_the_life_of_an_endpoint(api: Api, council: Run) -> None:
    endpoint = (await api.register()).json()["id"]
    pending = (await api.register(url=INTAKE + "/2", verified=False)).json()["id"]
    await api.rest()
    for arguments, told in (
        (("pause", endpoint), "paused"),
        (("resume", endpoint), "resumed"),
        (("test", endpoint), "on its way"),
        (("verify", pending), "the challenge is sent again"),
    ):
        done = await council("endpoints", *arguments)
        assert done.returncode == 0, done.stderr
        assert told in done.stderr
    rotated = await council("endpoints", "rotate", endpoint, "--hours", "3")
    assert "whsec_" in rotated.stdout
    assert "both sign for 3 h" in rotated.stderr
    early = await council("endpoints", "pause", pending)
    assert (early.returncode, early.stderr.count("\n")) == (5, 1)
    coded = await council("endpoints", "verify", pending, "--code", "4711")
    assert coded.returncode == 2
    trail = ok(await council("audit", "--json"))
    done = [entry["action"] for entry in trail if entry["key_label"] == "council"]
    assert done[::-1] == [
        "endpoint.paused",
        "endpoint.resumed",
        "endpoint.tested",
        "endpoint.challenged",
        "endpoint.secret_rotated",
    ]


# --- what it makes of answers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code", "message"),
    [
        (Answer(404, b"<html>"), 4, "answered 404"),
        (Answer(409, b'{"title": "No", "detail": "not\\u001b[2J now"}'), 5, "No: not [2J now"),
        (Answer(500, b'{"title": "Oh", "detail": "x", "correlation_id": "c1"}'), 6, "Oh: x (c1)"),
        (Answer(503, b""), 6, "answered 503"),
        (Answer(302, b"", {"location": "/"}), 6, "answered 302"),
        (Answer(200, b"<html>"), 6, "its answer is no JSON"),
        (Answer(cut=True), 6, "http://127.0.0.1:"),
    ],
)
async def test_exit_codes(answer: Answer, code: int, message: str) -> None:
    async with StubAuthority() as stub:
        stub.answer(f"/v1/authorities/{ID}/endpoints", answer)
        done = await run("endpoints", "list", url=stub.url(""), authority=str(ID))
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
