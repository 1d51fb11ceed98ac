"""The code that verifies a certificate without us is run, as it stands in the document."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api import evidence, examples

DOCUMENT = Path(__file__).parents[2] / "docs" / "evidence.md"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = evidence.public_key(KEY)


@pytest.fixture
def verify() -> Callable[[bytes, str], dict[str, Any]]:
    [code] = re.findall(r"(?ms)^```python\n(.*?)^```$", DOCUMENT.read_text("utf-8"))
    scope: dict[str, Any] = {}
    exec(compile(code, str(DOCUMENT), "exec"), scope)  # noqa: S102 - our own document
    found: Callable[[bytes, str], dict[str, Any]] = scope["verify"]
    return found


def test_it_takes_what_is_good(verify: Any) -> None:
    told = verify(evidence.encode(examples.CERTIFICATE), PUBLIC)
    assert told["accepted"][0]["reference"] == "HM-2026-10433"


def test_it_finds_what_is_changed_even_if_it_is_signed_again(verify: Any) -> None:
    for name, value in (("at", "2026-11-01T00:00:00.000000Z"), ("kind", "spam"), ("hash", "0")):
        changed = copy.deepcopy(examples.CERTIFICATE)
        changed["events"][1][name] = value
        with pytest.raises(AssertionError, match="event 2"):
            verify(evidence.encode(evidence.sign(changed, KEY)), PUBLIC)
    for number, said in ((0, "event 1"), (1, "the last events are gone")):
        short = copy.deepcopy(examples.CERTIFICATE)
        del short["events"][number]
        with pytest.raises(AssertionError, match=said):
            verify(evidence.encode(evidence.sign(short, KEY)), PUBLIC)


def test_it_finds_another_signer_and_an_unsigned_change(verify: Any) -> None:
    other = Ed25519PrivateKey.from_private_bytes(b"x" * 32)
    with pytest.raises(InvalidSignature):
        verify(evidence.encode(examples.CERTIFICATE), evidence.public_key(other))
    with pytest.raises(InvalidSignature):
        verify(evidence.encode({**examples.CERTIFICATE, "under_way": 1}), PUBLIC)


def test_the_text_that_is_shown_is_that_of_the_example() -> None:
    shown = DOCUMENT.read_text("utf-8").split("```text\n")[1].split("\n```")[0]
    hashed = examples.CERTIFICATE["events"][0]["hashed"]
    assert shown == re.sub(r'"[0-9a-f]{64}"', '"..."', hashed)
