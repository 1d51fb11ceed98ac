"""What a certificate says and whether it holds, without a database; and its page."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from api import certificate_page, evidence, examples
from api.evidence import NotACertificate

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER = Ed25519PrivateKey.from_private_bytes(b"x" * 32)


def a_certificate() -> dict[str, Any]:
    return copy.deepcopy(examples.CERTIFICATE)


def codes(document: dict[str, Any]) -> set[str]:
    return {finding.code for finding in evidence.check(document)}


def a_page(document: dict[str, Any]) -> bytes:
    return evidence.sign_page(certificate_page.draw(document, evidence.encode(document)), KEY)


def test_the_text_of_an_event_is_what_the_documents_say() -> None:
    first, second = examples.CERTIFICATE["events"]
    assert first["hashed"].split("\n") == [
        "georouter event 1",
        f"report {examples.REPORT_ID}",
        "n 1",
        "at 2026-11-02T08:15:04.120000Z",
        "kind received",
        f"authority {examples.AUTHORITY_ID}",
        "key -",
        f'detail {{"content_sha256": "{first["detail"]["content_sha256"]}"}}',
        "previous -",
    ]
    assert second["hashed"].endswith(f"\nprevious {first['hash']}")


def test_the_example_holds_and_comes_back_from_both_files() -> None:
    document = a_certificate()
    assert evidence.check(document) == []
    assert list(evidence.check_key(document, [evidence.public_key(KEY)])) == []
    assert [one.code for one in evidence.check_key(document, [])] == ["key"]
    for data in (evidence.encode(document), a_page(document)):
        assert evidence.read(data) == evidence.Read(document)


def test_what_somebody_else_signs_is_told_by_the_key() -> None:
    forged = evidence.sign({**a_certificate(), "under_way": 5}, OTHER)
    assert evidence.check(forged) == []
    assert [one.code for one in evidence.check_key(forged, [evidence.public_key(KEY)])] == ["key"]


def test_a_signer_cannot_tell_what_the_events_do_not() -> None:
    document = a_certificate()
    document["accepted"][0]["at"] = "2026-11-01T00:00:00.000000Z"
    document["attempts"][0]["status"] = 500
    assert codes(evidence.sign(document, KEY)) == {"accepted", "attempts"}


def test_each_part_that_is_changed_is_named() -> None:
    for name, value, wanted in (
        ("n", 7, ("event 7", {"gap", "event"})),
        ("at", "2026-11-01T08:15:06.020000Z", ("event 2", {"event"})),
        ("kind", "status", ("event 2", {"event"})),
        ("authority", None, ("event 2", {"event"})),
        ("key", None, ("event 2", {"event"})),
        ("detail", {}, ("event 2", {"event"})),
        ("hash", "0" * 64, ("event 2", {"hash"})),
    ):
        document = a_certificate()
        document["events"][1][name] = value
        if name == "detail":
            document["events"][1]["detail"] = {**a_certificate()["events"][1]["detail"], "n": 1.0}
        found = evidence.check(evidence.sign(document, KEY))
        where, kinds = wanted
        assert {one.code for one in found if one.where == where} == kinds, name


def test_an_event_left_out_is_found() -> None:
    document = a_certificate()
    del document["events"][0]
    assert {"gap", "chain"} <= codes(evidence.sign(document, KEY))
    document = a_certificate()
    del document["events"][1]
    assert {"head", "attempts", "accepted"} <= codes(evidence.sign(document, KEY))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"certificate": 1, "certificate": 2}',
        b'{"certificate": NaN}',
        b"%PDF-1.4\n",
        b"%PDF-1.4\n<< /Length 9 /Type /EmbeddedFile >>\nstream\nnot zlib!\nendstream",
    ],
)
def test_what_is_no_certificate(data: bytes) -> None:
    with pytest.raises(NotACertificate):
        evidence.read(data)


@pytest.mark.parametrize("data", [b'{"certificate": 1}', b'{"certificate": 1e999}'])
def test_what_is_out_of_shape(data: bytes) -> None:
    document = evidence.read(data).document
    assert codes(document) == {"shape"}
    assert evidence.summary(document)["report"] is None


def test_a_mail_that_came_back_is_no_acceptance() -> None:
    events = a_certificate()["events"]
    assert len(evidence.acceptances(evidence.attempts(events))) == 1
    back = copy.deepcopy(events[1])
    back["n"], back["detail"]["outcome"] = 3, "rejected"
    tried = evidence.attempts([*events, back])
    assert [one["outcome"] for one in tried] == ["rejected"]
    assert evidence.acceptances(tried) == []


# --- the page -------------------------------------------------------------------------------------


def pages(data: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b", data))


def letters(text: str) -> list[str]:
    certificate_page._register()
    return [one.letter + one.accents for one in certificate_page.glyphs(text, "Vera")]


def test_welsh_and_gaelic_letters_are_drawn() -> None:
    assert letters("ŵŷŴŶẃẅ") == [*(f"{one}\u02c6" for one in "wyWY"), "w\u00b4", "w\u00a8"]
    assert letters("àèìòùÀâêîôû") == list("àèìòùÀâêîôû")
    assert letters("w\u0302") == ["w\u02c6"]  # written as two


def test_what_the_font_lacks_is_a_box_or_something_like_it() -> None:
    assert letters("中a\u200bﬀ①\x00") == ["", "a", "f", "f", "1"]


def test_any_text_fits_on_one_page() -> None:
    document = a_certificate()
    for text in ("中" * 4000, "x" * 4000, "ŵ " * 2000, "\x00\n\t\u202e🕳️ العربية", "", "a\u0316b"):
        document["report"]["description"] = text
        document["decision"]["reason"] = text
        document["accepted"] = [
            {**one, "authority": {"id": examples.AUTHORITY_ID, "name": text}, "reference": text}
            for one in a_certificate()["accepted"]
        ] * 5
        second = document["events"][1]
        document["events"] = [{**second, "n": n + 1} for n in range(300)]
        data = certificate_page.draw(document, evidence.encode(document))
        assert pages(data) == 1


def test_every_kind_of_event_has_words() -> None:
    event = a_certificate()["events"][0]
    for kind in ("received", "answered", "not_ours", "rerouted", "with_operator", "me_too", "spam"):
        words = certificate_page.in_words({**event, "kind": kind, "detail": {"reason": "because"}})
        assert words[0].isupper()
    status = {**event, "kind": "status", "detail": {"state": "in_progress", "note": "soon"}}
    assert certificate_page.in_words(status) == "In progress, says Hearthmere: soon"


def test_a_page_that_was_saved_again_is_told() -> None:
    data = a_page(a_certificate())
    for other in (data[:-1], data + b"\n", data[: data.rindex(b"\n%georouter")], data.upper()):
        try:
            read = evidence.read(other)
        except NotACertificate:
            continue
        assert [one.code for one in read.findings] == ["page"]


def test_a_page_of_another_certificate_is_told() -> None:
    mine, other = a_certificate(), evidence.sign(a_certificate(), OTHER)
    data = evidence.sign_page(certificate_page.draw(mine, evidence.encode(other)), KEY)
    assert [one.code for one in evidence.read(data).findings] == ["page"]


def test_dates_are_read_the_same_everywhere() -> None:
    assert certificate_page.when("2026-11-02T08:15:04.120000Z") == "2 November 2026, 08:15:04 UTC"
    assert json.dumps(certificate_page.MONTHS).count('"') == 24
