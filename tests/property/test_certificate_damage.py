"""No change of a certificate goes unnoticed, wherever it is made."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from api import certificate_page, evidence, examples
from api.evidence import NotACertificate

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
DOCUMENT: dict[str, Any] = examples.CERTIFICATE
FILE = evidence.encode(DOCUMENT)
PAGE = evidence.sign_page(certificate_page.draw(DOCUMENT, FILE), KEY)

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all values, those that hold others included."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for name, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(one, (*path, name))


PATHS = list(leaves(DOCUMENT))


def same(document: Any) -> bool:
    """Whether it is the same certificate; true is not 1 here."""
    return json.dumps(document, sort_keys=True) == json.dumps(DOCUMENT, sort_keys=True)


def set_at(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    at: Any = document
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    return document


@given(path=st.sampled_from(PATHS), value=values)
def test_a_value_that_is_changed_is_found(path: tuple[Any, ...], value: Any) -> None:
    document = set_at(path, value)
    assert same(document) or evidence.check(document)


@given(
    path=st.sampled_from([path for path in PATHS if "events" in path and len(path) > 2]),
    value=values,
)
def test_a_value_of_an_event_is_found_whoever_signs(path: tuple[Any, ...], value: Any) -> None:
    # The name of an authority is the signer's word: the log has its id.
    document = set_at(path, value)
    if same(document) or path[-1] == "name":
        return
    document = evidence.sign(document, KEY)
    assert evidence.check(document)


@given(path=st.sampled_from([path for path in PATHS if isinstance(path[-1], str)]))
def test_a_value_that_is_gone_is_found(path: tuple[Any, ...]) -> None:
    document = copy.deepcopy(DOCUMENT)
    at: Any = document
    for name in path[:-1]:
        at = at[name]
    del at[path[-1]]
    assert evidence.check(document)


@given(data=st.data())
def test_a_bit_that_is_flipped_is_found(data: st.DataObject) -> None:
    for file in (FILE, PAGE):
        bit = data.draw(st.integers(0, len(file) * 8 - 1))
        damaged = bytearray(file)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            read = evidence.read(bytes(damaged))
        except NotACertificate:
            continue
        found = [*read.findings, *evidence.check(read.document)]
        assert found or (file is FILE and same(read.document))


@given(extra=st.text(min_size=1), value=values)
def test_a_value_that_is_added_is_found(extra: str, value: Any) -> None:
    for part in ((), ("report",), ("events", 0), ("signature",)):
        document = copy.deepcopy(DOCUMENT)
        at: Any = document
        for name in part:
            at = at[name]
        if extra not in at:
            at[extra] = value
            assert evidence.check(document)
