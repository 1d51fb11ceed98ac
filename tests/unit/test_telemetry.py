"""What libraries log comes out as one JSON line each, without what it quotes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from api import telemetry


@pytest.fixture(autouse=True)
def root() -> Iterator[logging.Logger]:
    """The root logger as it is in a process of ours, put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:]
    root.handlers.clear()
    yield root
    root.handlers[:] = before


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


async def test_what_the_loop_reports_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure()
    telemetry.configure()
    try:
        raise ConnectionResetError("a hole in the road")  # noqa: TRY301 - to have a traceback
    except ConnectionResetError as error:
        asyncio.get_running_loop().call_exception_handler(
            {
                "message": "Exception in callback read(b'a hole in the road')",
                "exception": error,
                "handle": "a hole in the road",
            }
        )
    [line] = lines(capsys)
    assert (line["event"], line["level"]) == ("library", "error")
    assert (line["logger"], line["said"]) == ("asyncio", "Exception in callback read(...)")
    assert "ConnectionResetError" in json.dumps(line["exception"])
    assert "hole" not in json.dumps(line)


def test_what_libraries_say_in_passing_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure()
    logging.getLogger("some.library").info("all is well")
    logging.getLogger("some.library").warning("%s is taking over 60 seconds", "Pool.close()")
    [line] = lines(capsys)
    assert (line["level"], line["said"]) == ("warning", "Pool.close(...) is taking over 60 seconds")
