"""Reports to a GeoReport server that loses answers, hands out tokens, and changes its mind."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit
from uuid import UUID

import asyncpg
import pytest

from api import db
from api.delivery import outbox, policy
from api.delivery.channels.open311 import MAX_DESCRIPTION_CHARS, Open311
from api.delivery.egress import Egress
from api.delivery.policy import Deferred, Delivered, Outcome, Rejected
from api.delivery.polling import Poller
from api.store import deliveries, events
from api.vault import Vault, new_key
from tests.support import rows
from tests.support.stub_authority import Answer, Received, StubAuthority

API_KEY = "xyz-key"
CONFIG: dict[str, Any] = {"services": {"pothole": "POT"}, "jurisdiction_id": "dogger.example"}


@dataclass
class Council:
    """A GeoReport server: keeps what is posted, and can be told to lose its answers."""

    stub: StubAuthority
    xml: bool = False
    lose: bool = False  # the answer to a POST, which it has taken
    token: bool = False
    lists: Answer | None = None  # instead of the list
    requests: dict[str, dict[str, Any]] = field(default_factory=dict)
    updates: list[dict[str, str]] = field(default_factory=list)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        # One handler for whatever is asked: addresses carry queries.
        self.stub._answers = _Always([self._answer])

    @property
    def url(self) -> str:
        return self.stub.url("/v2")

    def posts(self) -> list[dict[str, str]]:
        return [dict(parse_qsl(one.body.decode())) for one in self.stub.received if one.body]

    async def _answer(self, request: Received, writer: asyncio.StreamWriter) -> None:
        parts = urlsplit(request.path)
        self.asked.append((request.method, request.path))
        what = parts.path.removeprefix("/v2/").removesuffix(".json").removesuffix(".xml")
        reply: list[dict[str, Any]] | Answer
        if request.method == "POST":
            form = dict(parse_qsl(request.body.decode()))
            number = f"DOG-{len(self.requests) + 1}"
            self.requests[number] = {
                "service_request_id": number,
                "status": "open",
                "description": form["description"],
                "updated_datetime": "2027-01-15T08:00:00Z",
            }
            reply = [{"token": "T/1"} if self.token else {"service_request_id": number}]
            if self.lose:
                return
        elif what == "requests":
            reply = self.lists or list(self.requests.values())
        elif what.startswith("requests/"):
            found = self.requests.get(what.removeprefix("requests/"))
            reply = [found] if found else Answer(404, b'[{"code": 404, "description": "none"}]')
        elif what == "tokens/T%2F1":
            known = {} if self.token else {"service_request_id": next(iter(self.requests))}
            reply = [{"token": "T/1", **known}]
        elif what == "servicerequestupdates":
            reply = list(self.updates)  # type: ignore[arg-type]
        else:
            reply = Answer(404)
        if not isinstance(reply, Answer):
            name = "request_update" if what == "servicerequestupdates" else "request"
            reply = Answer(200, _xml(name, reply) if self.xml else json.dumps(reply).encode())
        await self.stub._answer(reply, writer)


class _Always(dict[str, list[Any]]):
    """The same answers whatever the path."""

    def __init__(self, answers: list[Any]) -> None:
        super().__init__()
        self._always = answers

    def get(self, _path: str, _default: Any = None) -> Any:
        return self._always


def _xml(name: str, listed: list[dict[str, Any]]) -> bytes:
    inner = "".join(
        f"<{name}>" + "".join(f"<{k}>{v}</{k}>" for k, v in row.items()) + f"</{name}>"
        for row in listed
    )
    return f'<?xml version="1.0" encoding="utf-8"?><list{name}s>{inner}</list{name}s>'.encode()


@dataclass
class World:
    """A council, a delivery owed to it, and what a worker has to send and to ask."""

    council: Council
    pool: asyncpg.Pool
    channel: Open311
    vault: Vault
    delivery_id: UUID
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def attempt(self) -> Outcome:
        """What a worker does for one attempt."""
        async with db.acquire(self.pool) as conn:
            await conn.execute("UPDATE delivery SET due_at = now() WHERE state = 'pending'")
            [claimed] = await outbox.claim(conn, worker=1, limit=1, lease_s=60, per_endpoint=1)
        outcome = await self.channel.send(claimed)
        following = policy.after(
            outcome, attempt=claimed.attempt, age_s=0, jitter=0, rejections=claimed.rejections
        )
        async with db.acquire(self.pool) as conn:
            assert await outbox.settle(conn, claimed, outcome, following)
        return outcome

    async def delivery(self) -> asyncpg.Record:
        return await self.pool.fetchrow("SELECT * FROM delivery")

    async def poll(self, *, due: bool = True) -> int:
        if due:
            await self.pool.execute(
                "UPDATE service_request SET next_poll_at = now() WHERE next_poll_at IS NOT NULL"
            )
        poller = Poller(
            self.pool, self.channel, self.vault, self.stop, time.time, lambda: 0.5, every_s=1.0
        )
        return await poller.round()

    async def events(self) -> list[dict[str, Any]]:
        found = await self.pool.fetch("SELECT * FROM report_event ORDER BY n")
        return [{**row["detail"]} for row in found]

    async def followed(self) -> asyncpg.Record:
        return await self.pool.fetchrow("SELECT * FROM service_request")


@pytest.fixture
async def world(pool: asyncpg.Pool) -> AsyncIterator[World]:
    async with make_world(pool) as world:
        yield world


@asynccontextmanager
async def make_world(pool: asyncpg.Pool, **config: Any) -> AsyncIterator[World]:
    vault = Vault([new_key()], where="test")
    async with (
        StubAuthority() as stub,
        Egress(allow=[ip_network("127.0.0.0/8")], timeout_s=1.0) as egress,
    ):
        council = Council(stub)
        async with db.acquire(pool) as conn:
            authority_id = await rows.authority(conn)
            endpoint_id = await rows.endpoint(
                conn,
                authority_id,
                url=council.url,
                channel="open311",
                secret=API_KEY,
                config={**CONFIG, **config},
            )
            delivery_id = await rows.delivery(conn, authority_id, endpoint_id)
        yield World(council, pool, Open311(egress, time.time), vault, delivery_id)


# --- sending --------------------------------------------------------------------------------------


async def test_a_report_becomes_a_service_request(world: World) -> None:
    outcome = await world.attempt()
    assert isinstance(outcome, Delivered)
    [post] = world.council.posts()
    report_id = await world.pool.fetchval("SELECT id FROM report")
    assert post == {
        "api_key": API_KEY,
        "jurisdiction_id": "dogger.example",
        "service_code": "POT",
        "lat": "55.2500000",
        "long": "2.5000000",
        "description": f"A hole as deep as a bucket, by № 7\n\n[report {report_id}]",
    }
    assert world.council.asked == [("POST", "/v2/requests.json")]
    delivery = await world.delivery()
    assert (delivery["state"], delivery["reference"]) == ("delivered", "DOG-1")


async def test_what_the_config_says_is_sent(pool: asyncpg.Pool) -> None:
    config = {
        "services": {},
        "default_service": "ANY",
        "attributes": {"SOURCE": "app", "a&b": "c=d"},
        "email": "reports@georouter.example",
        "format": "xml",
    }
    async with make_world(pool, **config) as world:
        world.council.xml = True
        await pool.execute("UPDATE report SET description = $1", "x" * 4000)
        assert isinstance(await world.attempt(), Delivered)
        assert world.council.asked == [("POST", "/v2/requests.xml")]
        [post] = world.council.posts()
        assert post["service_code"] == "ANY"
        assert post["attribute[SOURCE]"] == "app"
        assert post["attribute[a&b]"] == "c=d"
        assert post["email"] == "reports@georouter.example"
        assert len(post["description"]) == MAX_DESCRIPTION_CHARS
        assert (await world.delivery())["reference"] == "DOG-1"


async def test_a_category_without_a_service_is_rejected_unsent(world: World) -> None:
    await world.pool.execute("UPDATE report SET category = 'litter'")
    outcome = await world.attempt()
    assert isinstance(outcome, Rejected)
    assert "no service for the category litter" in outcome.why
    assert world.council.asked == []


async def test_an_error_is_told_without_the_key(world: World) -> None:
    async def refuse(_: Received, writer: asyncio.StreamWriter) -> None:
        body = f'[{{"code": 403, "description": "bad api_key {API_KEY}"}}]'.encode()
        await world.council.stub._answer(Answer(403, body), writer)

    world.council.stub._answers = _Always([refuse])
    outcome = await world.attempt()
    assert isinstance(outcome, Rejected)
    assert outcome.why == "answered 403: bad api_key [api_key]"
    assert API_KEY not in str(await world.pool.fetch("SELECT * FROM attempt"))


# --- a lost answer --------------------------------------------------------------------------------


@pytest.mark.parametrize("xml", [False, True])
async def test_a_lost_answer_does_not_double(world: World, *, xml: bool) -> None:
    world.council.lose, world.council.xml = True, xml
    outcome = await world.attempt()
    assert isinstance(outcome, Deferred)
    assert outcome.unsure
    again = await world.attempt()
    assert isinstance(again, Delivered)
    assert (again.reference, again.answer) == ("DOG-1", "found in the authority's list")
    assert len(world.council.posts()) == 1
    query = parse_qs(urlsplit(world.council.asked[1][1]).query)
    assert query["service_code"] == ["POT"]
    assert query["jurisdiction_id"] == ["dogger.example"]
    assert query["start_date"] < query["end_date"]
    assert API_KEY not in world.council.asked[1][1]


async def test_a_worker_that_died_may_have_sent_it(world: World) -> None:
    async with db.acquire(world.pool) as conn:
        [claimed] = await outbox.claim(conn, worker=1, limit=1, lease_s=0, per_endpoint=1)
    await world.channel.send(claimed)  # and never settled
    assert isinstance(await world.attempt(), Delivered)
    assert len(world.council.posts()) == 1
    assert (await world.delivery())["reference"] == "DOG-1"


@pytest.mark.parametrize(
    ("answer", "unsure"),
    [
        (Answer(cut=True), True),
        (Answer(delay_s=60), True),
        (Answer(500), True),
        (Answer(504), True),
        (Answer(200, b"<html>sign in</html>"), True),
        (Answer(200, b"[]"), True),
        (Answer(429), False),
    ],
)
async def test_what_did_not_arrive_is_sent_after_a_look(
    world: World, answer: Answer, *, unsure: bool
) -> None:
    serve = world.council.stub._answers
    world.council.stub._answers = _Always([answer])
    outcome = await world.attempt()
    assert isinstance(outcome, Deferred)
    assert outcome.unsure is unsure
    world.council.stub._answers = serve
    assert isinstance(await world.attempt(), Delivered)
    assert [method for method, _ in world.council.asked] == (["GET"] if unsure else []) + ["POST"]


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        (Answer(404), "answered 404"),
        (Answer(200, b"<html>sign in</html>"), "XML of another kind"),
        (Answer(200, b'[{"service_request_id": "DOG-1"}]'), "shows no descriptions"),
        (Answer(200, json.dumps([{"description": "x"}] * 1000).encode()), "more than one page"),
    ],
)
async def test_where_nobody_can_look_nothing_is_sent_again(
    world: World, lists: Answer, why: str
) -> None:
    world.council.lose, world.council.lists = True, lists
    await world.attempt()
    for _ in range(3):
        outcome = await world.attempt()
        assert isinstance(outcome, Rejected)
        assert why in outcome.why
        assert "not sent again" in outcome.why
    assert len(world.council.posts()) == 1
    assert (await world.delivery())["state"] == "dead"


async def test_a_persons_word_settles_the_doubt(world: World) -> None:
    world.council.lose, world.council.lists = True, Answer(404)
    await world.attempt()
    for _ in range(3):
        await world.attempt()
    assert (await world.delivery())["state"] == "dead"
    world.council.lose, world.council.lists = False, None
    world.council.asked.clear()
    async with db.acquire(world.pool) as conn:
        await deliveries.restart(conn, [world.delivery_id], patience_s=1.0)
    assert isinstance(await world.attempt(), Delivered)
    assert [method for method, _ in world.council.asked] == ["POST"]
    # What comes to be in doubt after that is looked for as ever.
    async with db.acquire(world.pool) as conn:
        await deliveries.restart(conn, [world.delivery_id], patience_s=1.0)
    world.council.lose = True
    await world.attempt()
    world.council.lose = False
    world.council.asked.clear()
    await world.attempt()
    assert [method for method, _ in world.council.asked] == ["GET"]


async def test_what_was_redelivered_is_asked_about_anew(world: World) -> None:
    await world.attempt()
    await world.pool.execute(
        "UPDATE service_request SET reference = 'lost', state = 'closed', next_poll_at = NULL"
    )
    async with db.acquire(world.pool) as conn:
        await deliveries.restart(conn, [world.delivery_id], patience_s=1.0)
    outcome = await world.attempt()
    assert isinstance(outcome, Delivered)
    followed = await world.followed()
    assert (followed["reference"], followed["state"]) == (outcome.reference, None)
    assert await world.poll() == 1


async def test_looking_is_tried_again_where_it_may_help(world: World) -> None:
    world.council.lose, world.council.lists = True, Answer(503, b"later")
    await world.attempt()
    outcome = await world.attempt()
    assert isinstance(outcome, Deferred)
    assert "looking whether it has" in outcome.why
    world.council.lists = None
    assert isinstance(await world.attempt(), Delivered)
    assert len(world.council.posts()) == 1


# --- what became of it ----------------------------------------------------------------------------


async def test_a_token_is_exchanged_and_never_posted_again(world: World) -> None:
    world.council.token = True
    assert isinstance(await world.attempt(), Delivered)
    delivery = await world.delivery()
    assert (delivery["state"], delivery["reference"]) == ("delivered", None)
    assert await world.poll(due=False) == 1
    assert (await world.delivery())["reference"] is None
    world.council.token = False
    await world.poll()
    assert (await world.delivery())["reference"] == "DOG-1"
    await world.poll()
    assert await world.events() == [
        {"state": "acknowledged", "reference": "DOG-1", "source": "open311"}
    ]
    assert len(world.council.posts()) == 1


async def test_news_are_told_once_and_closed_is_not_fixed(world: World) -> None:
    await world.attempt()
    request = world.council.requests["DOG-1"]
    for _ in range(2):
        await world.poll()
        # Some servers touch it every night.
        request["updated_datetime"] = "2027-01-16T08:00:00Z"
    request["status_notes"] = "a gang is on its way"
    await world.poll()
    request |= {"status": "closed", "status_notes": "see our site"}
    await world.poll()
    common = {"reference": "DOG-1", "source": "open311"}
    assert await world.events() == [
        {"state": "acknowledged", **common},
        {"state": "acknowledged", "note": "a gang is on its way", **common},
        {"state": "closed", "note": "see our site", **common},
    ]
    assert (await world.followed())["next_poll_at"] is None
    assert await world.poll() == 0
    authority = await world.pool.fetch("SELECT DISTINCT authority_id FROM report_event")
    assert [row[0] for row in authority] == [
        await world.pool.fetchval("SELECT authority_id FROM report")
    ]


@pytest.mark.parametrize("xml", [False, True])
async def test_updates_of_the_extension(pool: asyncpg.Pool, *, xml: bool) -> None:
    async with make_world(pool, updates=True) as world:
        await world.attempt()
        world.council.xml = xml
        common = {"service_request_id": "DOG-1", "updated_datetime": "2027-01-16T08:00:00Z"}
        world.council.updates = [
            {"update_id": "2", "status": "unchanged", "description": "still", **common},
            {"update_id": "1", "status": "investigating", "description": "", **common},
            {"update_id": "9", "status": "fixed", **common, "service_request_id": "DOG-77"},
        ]
        world.council.updates[1]["updated_datetime"] = "2027-01-15T09:00:00Z"
        await world.poll()
        await world.poll()
        world.council.updates.append(
            {"update_id": "3", "status": "not_councils_responsibility", **common}
        )
        world.council.updates[-1]["updated_datetime"] = "2027-01-17T08:00:00Z"
        await world.poll()
        told = [(one.get("state"), one.get("note")) for one in await world.events()]
        assert told == [("investigating", None), ("investigating", "still"), (None, None)]
        # so it is routed again
        assert await pool.fetchval("SELECT count(*) FROM reroute") == 1
        assert (await world.followed())["next_poll_at"] is None
        query = parse_qs(urlsplit(world.council.asked[-1][1]).query)
        assert query["api_key"] == [API_KEY]
        assert query["start_date"] < query["end_date"]


async def test_polling_backs_off_and_holds_no_connection(world: World) -> None:
    await world.attempt()
    world.council.stub._answers = _Always([Answer(delay_s=60)])
    async with asyncio.TaskGroup() as tasks:
        polling_task = tasks.create_task(world.poll())
        await world.council.stub.wait_for(2)
        assert world.pool.get_idle_size() == world.pool.get_size()
        # It is leased: another worker leaves it alone.
        assert await world.poll(due=False) == 0
    assert polling_task.result() == 1
    followed = await world.followed()
    assert followed["failures"] == 1
    assert await world.events() == []
    wait = "SELECT next_poll_at > now() + interval '5 minutes' FROM service_request"
    assert await world.pool.fetchval(wait)


async def test_one_that_the_authority_does_not_know_does_not_hide_the_others(
    world: World,
) -> None:
    await world.attempt()
    async with db.acquire(world.pool) as conn:
        first = await conn.fetchrow("SELECT report_id, endpoint_id FROM delivery")
        authority_id = await conn.fetchval("SELECT authority_id FROM report")
        await rows.delivery(conn, authority_id, first["endpoint_id"])
    await world.attempt()
    del world.council.requests["DOG-1"]
    assert await world.poll() == 2
    assert [one["reference"] for one in await world.events()] == ["DOG-2"]


@pytest.mark.parametrize(
    "ending",
    [
        "UPDATE service_request SET since = now() - interval '181 days'",
        "UPDATE endpoint SET state = 'deleted', ended_at = now()",
    ],
)
async def test_asking_ends(world: World, ending: str) -> None:
    await world.attempt()
    await world.pool.execute(ending)
    assert await world.poll() == 1
    assert (await world.followed())["next_poll_at"] is None
    assert len(world.council.asked) == 1


async def test_a_secret_that_cannot_be_opened_is_a_failure_and_no_crash(world: World) -> None:
    await world.attempt()
    other = Vault([new_key()], where="other").seal(API_KEY)
    await world.pool.execute("UPDATE endpoint SET secret = $1", other)
    await world.poll()
    assert (await world.followed())["failures"] == 1
    assert len(world.council.asked) == 1


async def test_an_answer_after_the_lease_changes_nothing(world: World) -> None:
    await world.attempt()
    council = world.council
    closed = json.dumps([{"service_request_id": "DOG-1", "status": "closed"}]).encode()
    council.stub._answers = _Always([Answer(200, closed, delay_s=0.7), council._answer])
    async with asyncio.TaskGroup() as tasks:
        late = tasks.create_task(world.poll())
        await council.stub.wait_for(2)
        # As if its lease had ended
        assert await world.poll() == 1
        assert not late.done()
    assert late.result() == 1
    assert [one["state"] for one in await world.events()] == ["acknowledged"]
    assert (await world.followed())["next_poll_at"] is not None


# --- events ---------------------------------------------------------------------------------------


async def test_events_are_numbered_without_gaps_and_repeated_without_harm(
    pool: asyncpg.Pool,
) -> None:
    async with db.acquire(pool) as conn:
        authority_id = await rows.authority(conn)
        report_id = await rows.report(conn, authority_id)

    async def add(key: str | None) -> int | None:
        async with db.acquire(pool) as conn:
            return await events.add_event(
                conn, report_id, kind="status", authority_id=authority_id, detail={}, key=key
            )

    keys = [None] * 5 + [f"key {n % 3}" for n in range(9)]
    numbers = await asyncio.gather(*(add(key) for key in keys))
    assert sorted(n for n in numbers if n is not None) == list(range(1, 9))
    assert await add("key 1") is None
