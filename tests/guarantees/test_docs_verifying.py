"""The code that councils copy to verify signatures is run, as it stands in the document.

Where a language is not on the machine its test is skipped, loudly.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from api.delivery import signing

DOCUMENT = Path(__file__).parents[2] / "docs" / "webhooks.md"
SECRET = signing.new_secret(lambda size: bytes(range(size)))
OTHER = signing.new_secret(bytes)
BODY = '{"type":"report.created","description":"a hole by № 7"}'.encode()

Case = tuple[dict[str, str], bytes, bool]

JAVASCRIPT = """
for (const [headers, body, good] of JSON.parse(process.argv[1])) {
  let taken = true;
  try { verify(process.argv[2], headers, Buffer.from(body, "base64")); } catch { taken = false; }
  console.log(JSON.stringify(taken));
}
"""
PHP = """
foreach (json_decode($argv[1], true) as [$headers, $body, $good]) {
    $taken = true;
    try { verify($argv[2], $headers, base64_decode($body)); }
    catch (RuntimeException) { $taken = false; }
    echo json_encode($taken), "\\n";
}
"""


def code(language: str) -> str:
    """The one block in this language that computes signatures."""
    blocks = re.findall(
        rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    [found] = [block for block in blocks if "hmac" in block.lower()]
    return str(found)


def cases() -> Iterator[Case]:
    """Headers, body, and whether they are to be taken."""
    now = int(time.time())

    def signed(secrets: list[str], at: int = now, body: bytes = BODY) -> dict[str, str]:
        return signing.headers(secrets, message_id="m-1", timestamp=at, body=body)

    good = signed([SECRET])
    yield good, BODY, True
    yield signed([SECRET], body=b""), b"", True
    yield signed([SECRET], body=b"\xff\x00"), b"\xff\x00", True
    yield signed([OTHER, SECRET]), BODY, True
    yield signed([SECRET, OTHER]), BODY, True
    yield signed([SECRET], now - 290), BODY, True
    yield signed([SECRET], now - 310), BODY, False
    yield signed([SECRET], now + 310), BODY, False
    yield signed([OTHER]), BODY, False
    yield good, BODY + b" ", False
    yield {**good, "webhook-id": "m-2"}, BODY, False
    yield {**good, "webhook-timestamp": str(now + 1)}, BODY, False
    for signature in ("", "v1,", "v1", "v2" + good["webhook-signature"][2:], "é v1,é"):
        yield {**good, "webhook-signature": signature}, BODY, False
    for timestamp in ("", "soon", "1e9", "-1", "9" * 30, f"{now}\n"):
        yield {**good, "webhook-timestamp": timestamp}, BODY, False
    for name in good:
        yield {other: value for other, value in good.items() if other != name}, BODY, False


def run(*command: str) -> list[bool]:
    given = [(headers, base64.b64encode(body).decode(), good) for headers, body, good in cases()]
    done = subprocess.run(
        [*command, json.dumps(given), SECRET], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wanted() -> list[bool]:
    return [good for _, _, good in cases()]


def interpreter(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"NOT RUN: there is no {name} on this machine")
    return path


def test_ours_agrees_with_the_cases() -> None:
    for headers, body, good in cases():
        try:
            signing.verify(SECRET, headers, body, now=time.time())
        except signing.InvalidSignature:
            assert not good, headers
        else:
            assert good, headers


def test_python() -> None:
    scope: dict[str, Any] = {}
    exec(compile(code("python"), str(DOCUMENT), "exec"), scope)  # noqa: S102 - our own document
    for headers, body, good in cases():
        try:
            scope["verify"](SECRET, headers, body)
        except (ValueError, KeyError):
            assert not good, headers
        else:
            assert good, headers


def test_javascript() -> None:
    program = code("javascript") + JAVASCRIPT
    assert run(interpreter("node"), "--input-type=module", "-e", program, "--") == wanted()


def test_php(tmp_path: Path) -> None:
    program = tmp_path / "verify.php"
    program.write_text(code("php") + PHP, "utf-8")
    assert run(interpreter("php"), str(program)) == wanted()


def test_csharp(tmp_path: Path) -> None:
    dotnet = interpreter("dotnet")
    (tmp_path / "Verify.cs").write_text(code("csharp"), "utf-8")
    (tmp_path / "Verify.csproj").write_text(
        '<Project Sdk="Microsoft.NET.Sdk"><PropertyGroup><TargetFramework>net8.0'
        "</TargetFramework><ImplicitUsings>enable</ImplicitUsings></PropertyGroup></Project>"
    )
    subprocess.run([dotnet, "build", "--nologo"], cwd=tmp_path, check=True, capture_output=True)
