from __future__ import annotations

import pytest

from api.delivery import georeport
from api.delivery.georeport import NotGeoReport, address, news_of, reference_of, rows

XML = """<?xml version="1.0" encoding="utf-8"?>
<service_requests>
  <request>
    <service_request_id>A-1</service_request_id>
    <status>open</status>
    <status_notes></status_notes>
    <description>naïve &lt;hole&gt; £5</description>
  </request>
  <request><token>T-2</token></request>
</service_requests>"""


def test_both_formats_are_read_as_one() -> None:
    expected = [
        {"service_request_id": "A-1", "status": "open", "description": "naïve <hole> £5"},
        {"token": "T-2"},
    ]
    assert rows(XML.encode(), "request") == expected
    assert rows(b"\xef\xbb\xbf" + XML.encode(), "request") == expected
    assert rows(XML.replace("utf-8", "utf-16").encode("utf-16"), "request") == expected
    json = (
        '[{"service_request_id": "A-1", "status": "open", "status_notes": null,'
        ' "description": "naïve <hole> £5"}, {"token": "T-2", "media_url": ""}]'
    )
    assert rows(json.encode(), "request") == expected
    assert rows(f'{{"service_requests": {json}}}'.encode(), "request") == expected


@pytest.mark.parametrize(
    "body",
    [
        b'[{"service_request_id": 638344}]',
        b'{"service_request_id": "638344"}',
        b'[{"request": {"service_request_id": "638344"}}]',
        b"<r><request><service_request_id>638344</service_request_id></request></r>",
        b"<request><service_request_id> 638344\n</service_request_id></request>",
    ],
)
def test_a_number_is_found_however_it_is_spelled(body: bytes) -> None:
    [row] = rows(body, "request")
    assert reference_of(row) == "638344"


def test_nothing_is_an_empty_list() -> None:
    assert rows(b"[]", "request") == []
    assert rows(b"<service_requests/>", "request") == []
    assert (
        rows(b'<?xml version="1.0"?><service_request_updates></service_request_updates>', "x") == []
    )


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE r [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in ("ab", "bc", "cd", "de"))
    + "]><service_requests><request><token>&e;</token></request></service_requests>"
)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no",
        b"\xff\xff\xff",
        b'"text"',
        b"[1, 2]",
        b"[" * 100_000,
        b'[{"service_request_id": 001}]',
        b"<html><body>sign in</body></html>",
        b"<html><body>sign in",
        b"<a>" * 100,
        BOMB.encode(),
        b'<!DOCTYPE r SYSTEM "http://127.0.0.1/x"><service_requests/>',
        b'<?xml version="1.0" encoding="klingon"?><service_requests/>',
        b"<service_requests>&undefined;</service_requests>",
    ],
)
def test_what_is_no_geo_report_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(NotGeoReport):
        rows(body, "request")


def test_texts_and_numbers_have_their_measure() -> None:
    [row] = rows(f'[{{"description": "{"x" * 9000}"}}]'.encode(), "request")
    assert len(row["description"]) == georeport.TEXT_CHARS
    assert reference_of({"service_request_id": "x" * 101}) is None
    assert reference_of({"service_request_id": "a\nb"}) is None
    assert reference_of({}, "token") is None


@pytest.mark.parametrize(
    ("word", "state", "reason"),
    [
        ("open", "acknowledged", None),
        ("OPEN", "acknowledged", None),
        ("closed", "closed", None),
        ("fixed", "fixed", None),
        ("In Progress", "in_progress", None),
        ("action_scheduled", "planned", None),
        ("DUPLICATE", "closed", "duplicate"),
        ("not_councils_responsibility", "closed", "not_responsible"),
        ("no_further_action", "closed", "no_further_action"),
        ("internal_referral", "closed", None),
        ("reopen", "reopened", None),
        ("unchanged", None, None),
        ("mended, we believe", None, None),
        ("", None, None),
    ],
)
def test_statuses_become_our_words(word: str, state: str | None, reason: str | None) -> None:
    news = news_of({"status": word, "status_notes": "a note", "updated_datetime": "2027"})
    assert (news.state, news.reason, news.note, news.at) == (state, reason, "a note", "2027")


def test_only_fixed_is_fixed() -> None:
    fixed = [word for word, (state, _) in georeport.STATES.items() if state == "fixed"]
    assert fixed == ["fixed"]


def test_a_request_does_not_tell_the_reporters_words_as_the_authoritys() -> None:
    assert news_of({"status": "open", "description": "A hole"}).note is None
    update = {"status": "open", "description": "Looking", "update_id": "1"}
    assert news_of(update).note == "Looking"


def test_addresses_hold_what_is_put_into_them() -> None:
    assert (
        address("https://a.example/v2/", "requests", "a/b?c", suffix="xml", x=None, y="&")
        == "https://a.example/v2/requests/a%2Fb%3Fc.xml?y=%26"
    )
    assert georeport.instant(0.9) == "1970-01-01T00:00:00Z"
