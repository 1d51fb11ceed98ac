"""What a reporter sends beside the report: contact details, and "that is mine too"."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pyproj import Geod

from api import followers
from api.delivery import outbox
from api.delivery.channels.mail import compose
from api.store.sealed import reseal
from api.vault import Vault, new_key
from tests.integration.test_api_public import say
from tests.integration.test_secrets import OPEN311, dump, settings_for, work
from tests.support.app import IN_WEST, KEY, WEST, Api, slug
from tests.support.stub_authority import Answer, StubAuthority

WGS84 = Geod(ellps="WGS84")
CONTACT: dict[str, Any] = {
    "name": "  Jo van Field ",
    "email": "Jo.Field@EXAMPLE.org",
    "phone": "020 7946 0000",
    "share_with_council": False,
}
SAID = ("Jo van Field", "Jo.Field@", "442079460000", "2079460000")
VAULT = Vault([KEY], where="test")


def fields(refused: httpx.Response) -> dict[str, str]:
    assert (refused.status_code, slug(refused)) == (422, "validation-failed")
    return {one["field"]: one["message"] for one in refused.json()["errors"]}


async def track_of(api: Api, response: httpx.Response) -> asyncpg.Record:
    """The follower that a receipt's private link is of."""
    track = response.json()["links"]["track"]
    token = track.removeprefix("/v1/track/")
    assert len(token) == 43
    row = await api.pool.fetchrow(
        "SELECT * FROM follower WHERE token_sha256 = $1", followers.token_sha256(token)
    )
    assert row is not None
    assert VAULT.open(row["token"]) == token
    return row


# --- contact --------------------------------------------------------------------------------------


async def test_an_anonymous_reporter_has_a_link_of_their_own(api: Api) -> None:
    first = await api.post_report(idempotency_key="k")
    row = await track_of(api, first)
    assert (str(row["report_id"]), row["kind"]) == (first.json()["id"], "reporter")
    assert (row["contact"], row["contact_hmac"]) == (None, None)
    again = await api.post_report(idempotency_key="k", contact=None)
    assert again.json() == first.json()
    assert await api.pool.fetchval("SELECT count(*) FROM follower") == 1
    other = await api.post_report()
    assert other.json()["links"]["track"] != first.json()["links"]["track"]


async def test_contact_details_are_normalised_and_sealed(
    api: Api, database_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with StubAuthority() as stub:
        await api.register(url=stub.url())
        posted = await api.post_report(idempotency_key="k", contact=CONTACT, **IN_WEST)
        assert posted.status_code == 201, posted.text
        again = await api.post_report(idempotency_key="k", contact=CONTACT)
        assert again.json() == posted.json()
        await work(settings_for(database_url))
        (message,) = stub.at("/intake")
    row = await track_of(api, posted)
    assert json.loads(VAULT.open(row["contact"])) == {
        "name": "Jo van Field",
        "email": "Jo.Field@example.org",
        "phone": "+442079460000",
    }
    assert (row["share_contact"], row["notify"]) == (False, False)
    assert json.loads(message.body)["data"]["contact"] is None
    path = posted.json()["links"]["self"]
    shown = [(await api.get(path, key=key)).text for key in ("app", "council", "operator")] + [
        (await api.get("/v1/reports")).text
    ]
    places = [*shown, message.body.decode(), await dump(api.pool), "\n".join(capfd.readouterr())]
    token = posted.json()["links"]["track"].removeprefix("/v1/track/")
    for place in places:
        for said in (*SAID, token):
            assert said not in place


async def test_a_person_is_found_by_their_address_whatever_the_keys(api: Api) -> None:
    await api.post_report(contact={"email": "Jo@example.org"})
    await api.post_report(contact={"email": " jo@EXAMPLE.org "})
    await api.post_report(contact={"email": "mo@example.org"})
    await api.post_report(contact={"phone": "020 7946 0000"})
    newer = new_key()
    both = Vault([newer, KEY], where="both")
    async with api.pool.acquire() as conn:
        done = await reseal(conn, both)
        assert (done.changed, done.unreadable) == (1 + 4 + 4, 0)
        assert (await reseal(conn, both)).changed == 0
        wanted = await followers.contact_hmac(
            conn, "jo@example.org", vault=Vault([newer], where="new"), random_bytes=bytes
        )
    assert await api.pool.fetchval("SELECT count(*) FROM contact_key") == 1
    found = await api.pool.fetchval("SELECT count(*) FROM follower WHERE contact_hmac = $1", wanted)
    assert found == 2
    # The web process has the old key only.
    refused = await api.post_report(contact={"email": "jo@example.org"})
    assert (refused.status_code, slug(refused)) == (503, "sealed-unreadable")
    assert (await api.post_report()).status_code == 201


@pytest.mark.parametrize(
    ("contact", "field", "said"),
    [
        ({"email": "jo"}, "contact.email", "must be an e-mail address"),
        ({"email": "jo@localhost"}, "contact.email", "must be an e-mail address"),
        ({"email": "Jo <jo@example.org>"}, "contact.email", "must be an e-mail address"),
        ({"email": "jo@example.org\r\nBcc: x@example.org"}, "contact.email", "e-mail address"),
        ({"phone": "call me"}, "contact.phone", "must be a phone number"),
        ({"phone": "12"}, "contact.phone", "must be a phone number"),
        ({"name": "x" * 101}, "contact.name", "100"),
        ({"name": "Jo\nField"}, "contact.name", "printable"),
        ({"notify": True}, "contact", "needs an email"),
        ({"notify": True, "email": " "}, "contact", "needs an email"),
        ({"fax": "1"}, "contact.fax", "is not a field"),
        ("jo@example.org", "contact", ""),
    ],
)
async def test_what_is_no_contact(api: Api, contact: Any, field: str, said: str) -> None:
    refused = fields(await api.post_report(contact=contact))
    assert list(refused) == [field]
    assert said in refused[field]
    assert (await api.rows())["report"] == 0


async def test_blank_fields_are_fields_not_given(api: Api) -> None:
    blank = {"name": " ", "email": "", "phone": "\t", "share_with_council": True}
    row = await track_of(api, await api.post_report(contact=blank))
    assert (row["contact"], row["contact_hmac"]) == (None, None)
    foreign = await api.post_report(contact={"phone": "+33 1 23 45 67 89"})
    stored = VAULT.open((await track_of(api, foreign))["contact"])
    assert json.loads(stored) == {"phone": "+33123456789"}


async def test_what_the_council_may_have_goes_with_the_report(api: Api, database_url: str) -> None:
    shared = {**CONTACT, "share_with_council": True}
    async with StubAuthority() as stub:
        stub.answer("/v2/requests.json", Answer(201, b'[{"service_request_id": "7"}]'))
        await api.register(url=stub.url())
        await api.register(channel="open311", url=stub.url("/v2"), config=OPEN311)
        await api.post_report(contact=shared)
        await api.post_report(contact={"phone": "020 7946 0000", "share_with_council": True})
        await work(settings_for(database_url))
        told = [json.loads(one.body)["data"]["contact"] for one in stub.at("/intake")]
        forms = [httpx.QueryParams(one.body.decode()) for one in stub.at("/v2/requests.json")]
    assert len(told) == 2
    assert {"name": None, "email": None, "phone": "+442079460000"} in told
    assert {
        "name": "Jo van Field",
        "email": "Jo.Field@example.org",
        "phone": "+442079460000",
    } in told
    names = ("first_name", "last_name", "email", "phone")
    given = [[form.get(name) for name in names] for form in forms]
    assert len(given) == 2
    assert [None, None, None, "+442079460000"] in given
    assert ["Jo van", "Field", "Jo.Field@example.org", "+442079460000"] in given
    everything = await dump(api.pool)
    assert not [said for said in SAID if said in everything]


async def test_a_mail_says_how_to_reach_the_reporter(api: Api) -> None:
    await api.register()
    await api.post_report(contact={**CONTACT, "share_with_council": True})
    async with api.pool.acquire() as conn:
        [claimed] = await outbox.claim(conn, worker=1, limit=5, lease_s=60.0, per_endpoint=5)
    assert claimed.contact is not None
    assert "Jo" not in repr(claimed)
    sent = replace(claimed, contact=VAULT.open(claimed.contact), url="mailto:a@council.example")
    assert "Jo" not in repr(sent)
    text = compose(sent, sender="from@service.example").get_body(("plain",))
    assert text is not None
    assert "Reporter: Jo van Field, Jo.Field@example.org, +442079460000\n" in text.get_content()
    bare = compose(replace(sent, contact=None), sender="from@service.example").as_string()
    assert "Reporter:" not in bare


# --- any clock ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        ("1970-01-01T00:00:00Z", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2106-02-07T06:28:15Z", datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC)),
        ("2026-11-02T00:30:00+14:00", datetime(2026, 11, 1, 10, 30, tzinfo=UTC)),
        ("2026-11-02T00:30:00.123456789-12:00", datetime(2026, 11, 2, 12, 30, 0, 123456, UTC)),
        ("0001-01-01T00:00:00+02:00", datetime(1, 1, 1, 0, 0, 0, 1, UTC)),
        ("0001-01-01T00:00:00Z", datetime(1, 1, 1, 0, 0, 0, 1, UTC)),
        ("9999-12-31T23:59:59.999999-01:00", datetime(9999, 12, 31, 23, 59, 59, 999998, UTC)),
    ],
)
async def test_the_devices_clock_is_kept_and_not_believed(
    api: Api, said: str, stored: datetime
) -> None:
    posted = await api.post_report(observed_at=said)
    assert posted.status_code == 201
    row = await api.pool.fetchrow("SELECT observed_at, received_at, now() FROM report")
    assert row["observed_at"] == stored
    assert abs((row["now"] - row["received_at"]).total_seconds()) < 60


# --- that is mine too -----------------------------------------------------------------------------


async def join(api: Api, original: str, **more: Any) -> httpx.Response:
    return await api.post_report(
        **{"duplicate_of": original, "description": "the same hole", **more}
    )


async def test_a_duplicate_is_counted_and_its_reporter_follows(api: Api) -> None:
    await api.register()
    original = (await api.post_report()).json()
    await say(api, original["id"], WEST, "in_progress")
    before = await api.rows()
    lon, lat, _ = WGS84.fwd(IN_WEST["lon"], IN_WEST["lat"], 77, 240)
    first = await join(
        api,
        original["id"],
        key="other app",
        idempotency_key="k",
        lon=lon,
        lat=lat,
        contact={"email": "mo@example.org", "notify": True},
    )
    assert first.status_code == 201, first.text
    receipt = first.json()
    assert (receipt["id"], receipt["duplicate_of"]) == (original["id"], original["id"])
    assert (receipt["forwarding"], receipt["reports"]) == ("joined", 2)
    assert receipt["status"] == "in_progress"
    assert receipt["message"] == (
        "Received. This report is with West already; with yours there are 2 of it. West said last: "
        "in progress."
    )
    assert receipt["decision"] == original["decision"]
    row = await track_of(api, first)
    assert (row["kind"], row["notify"], str(row["report_id"])) == ("me_too", True, original["id"])
    after = await api.rows()
    assert (after["report"], after["idempotency"]) == (1, before["idempotency"] + 1)

    shown = (await api.get(original["links"]["self"])).json()
    assert (shown["reports"], shown["links"]["track"]) == (2, None)
    event = shown["events"][-1]
    assert (event["kind"], event["reports"], event["note"]) == ("me_too", 2, None)
    (near,) = (await api.get("/v1/nearby", **IN_WEST, category="pothole")).json()["items"]
    assert near["reports"] == 2

    # What the receipt said stays, whatever becomes of the report.
    await join(api, original["id"])
    await say(api, original["id"], WEST, "fixed")
    again = await join(
        api,
        original["id"],
        key="other app",
        idempotency_key="k",
        lon=lon,
        lat=lat,
        contact={"email": "mo@example.org", "notify": True},
    )
    assert again.json() == receipt
    assert again.headers["idempotency-replayed"] == "true"
    other = await join(api, original["id"], key="other app", idempotency_key="k")
    assert slug(other) == "idempotency-key-reused"


async def test_what_cannot_be_joined(api: Api) -> None:
    posted = (await api.post_report(idempotency_key="mine")).json()
    before = await api.rows()
    lon, lat, _ = WGS84.fwd(IN_WEST["lon"], IN_WEST["lat"], 200, 260)
    far = fields(await join(api, posted["id"], lon=lon, lat=lat))["duplicate_of"]
    assert "260 m away" in far
    unknown = fields(await join(api, str(uuid4()), idempotency_key="k"))["duplicate_of"]
    await say(api, posted["id"], WEST, "closed", reason="no_further_action")
    closed = fields(await join(api, posted["id"]))["duplicate_of"]
    assert "is closed" in closed
    for said in (far, unknown, closed):
        assert said.endswith("send this one as a new report, without duplicate_of")
    assert list(fields(await join(api, "7"))) == ["duplicate_of"]
    assert slug(await join(api, posted["id"], category="meteor")) == "unknown-category"
    assert await api.rows() == before
    assert await api.pool.fetchval("SELECT count(*) FROM follower") == 1
    # The key of what was refused is free.
    assert (await api.post_report(idempotency_key="k")).status_code == 201


async def test_the_council_is_told_the_weight(api: Api, database_url: str) -> None:
    async with StubAuthority() as stub:
        await api.register(url=stub.url())
        original = (await api.post_report()).json()["id"]
        for _ in range(5):
            assert (await join(api, original)).status_code == 201
        await work(settings_for(database_url), 1.5)
        messages = [json.loads(one.body) for one in stub.at("/intake")]
    assert [one["type"] for one in messages] == ["report.created", *["report.updated"] * 3]
    assert [one["data"].get("reports") for one in messages] == [None, 2, 3, 5]
    assert {one["data"]["report"]["id"] for one in messages} == {original}


async def test_fifty_at_once_with_one_key_are_one(api: Api) -> None:
    await api.register()
    original = (await api.post_report()).json()["id"]
    answers = await asyncio.gather(*(join(api, original, idempotency_key="k") for _ in range(50)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1
    assert await api.pool.fetchval("SELECT count(*) FROM report_event WHERE kind = 'me_too'") == 1
    assert await api.pool.fetchval("SELECT count(*) FROM follower") == 2
    assert await api.pool.fetchval("SELECT count(*) FROM delivery WHERE sequence = 2") == 1


async def test_fifty_neighbours_at_once_are_all_counted(api: Api) -> None:
    original = (await api.post_report()).json()["id"]
    answers = await asyncio.gather(*(join(api, original) for _ in range(50)))
    assert sorted(answer.json()["reports"] for answer in answers) == list(range(2, 52))
    assert len({answer.json()["links"]["track"] for answer in answers}) == 50
