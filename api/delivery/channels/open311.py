"""The Open311 channel: a report as a service request in an authority's GeoReport v2 server.

GeoReport has no idempotency key. So the report's id stands in the description, and where an earlier
attempt may have arrived, the authority's list is searched for it before anything is sent again;
where it cannot be searched nothing is sent, and the delivery ends as dead for a person to look at.
The other half asks what became of a service request; `polling` says when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote_plus, urlencode

from api.delivery import policy
from api.delivery.egress import Answer, Egress, EgressFailed, EgressRefused, NotConnected
from api.delivery.georeport import (
    News,
    NotGeoReport,
    Row,
    address,
    instant,
    news_of,
    reference_of,
    rows,
)
from api.delivery.outbox import Claimed
from api.schemas import Open311Config
from api.store.probes import Probe

MAX_DESCRIPTION_CHARS = 4000
MAX_LIST_BYTES = 4 * 1024 * 1024
# What a server gives at most; a list as long as this may lack what we look for.
MAX_ROWS = 1000
# Clocks differ; a server refuses windows of more than 90 days.
MARGIN_S = 3600.0
MAX_WINDOW_S = 89 * 86400.0
_PLEASE = {"accept": "application/json, text/xml;q=0.9"}


class NotAnswered(Exception):  # noqa: N818 - reads as the sentence it is
    """An authority did not say what became of a service request; the message says why not.

    `unknown`: it knows nothing of this one, and may know others.
    """

    def __init__(self, why: str, *, unknown: bool = False) -> None:
        super().__init__(why)
        self.unknown = unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """An authority's GeoReport server, as an endpoint describes it."""

    url: str
    api_key: str = field(repr=False)
    config: Open311Config

    @classmethod
    def of(cls, url: str, api_key: str, config: Mapping[str, Any]) -> Server:
        """From an endpoint's columns."""
        return cls(url=url, api_key=api_key, config=Open311Config.model_validate(config))

    def address(self, *path: str, **query: str | None) -> str:
        """The URL of a resource."""
        jurisdiction = self.config.jurisdiction_id
        query = {"jurisdiction_id": jurisdiction, **query}
        return address(self.url, *path, suffix=self.config.format, **query)


class Open311:
    """GeoReport v2 over the given egress; `clock` gives Unix seconds."""

    def __init__(self, egress: Egress, clock: Callable[[], float]) -> None:
        self._egress = egress
        self._clock = clock

    async def send(self, claimed: Claimed) -> policy.Outcome:
        """Look whether it has arrived, if that is in doubt; if not, POST it."""
        server = Server.of(claimed.url, claimed.secret, claimed.config)
        service_code = server.config.services.get(claimed.category, server.config.default_service)
        if service_code is None:
            return policy.Rejected(
                why=f"the endpoint's config names no service for the category {claimed.category}, "
                "and no default_service"
            )
        if claimed.unsure:
            found = await self._look(server, claimed, service_code)
            if found is not None:
                return found
        try:
            answer = await self._egress.post(
                address(server.url, "requests", suffix=server.config.format),
                form(server, claimed, service_code),
                {
                    **_PLEASE,
                    "content-type": "application/x-www-form-urlencoded",
                    # No part of GeoReport; who knows it, as we do, takes a repetition for one.
                    "idempotency-key": str(claimed.delivery_id),
                },
            )
        except (EgressRefused, NotConnected) as error:
            return policy.Deferred(why=str(error))
        except EgressFailed as error:
            return policy.Deferred(why=f"{error}; it may have arrived", unsure=True)
        return self._read(_without(server.api_key, answer))

    async def probe(self, probe: Probe) -> policy.Outcome:
        """Ask for the list of services, which every server has: nothing is opened there."""
        server = Server.of(probe.url, probe.secret, probe.config)
        try:
            await self._ask(server, server.address("services"), "service")
        except NotAnswered as error:
            return policy.Deferred(why=f"GET services {error}")
        return policy.Delivered(status=200)

    def _read(self, answer: Answer) -> policy.Outcome:
        outcome = policy.outcome_of(answer.status, answer.headers, answer.body, now=self._clock())
        match outcome:
            case policy.Delivered():
                return _accepted(outcome, answer.body)
            case policy.Deferred():
                # An error behind the server's door may have come after the request was stored.
                return replace(outcome, unsure=answer.status >= 500 or answer.status == 408)
            case policy.Rejected():
                return replace(outcome, why=f"{outcome.why}{_errors(answer.body)}")
            case _:
                return outcome

    async def _look(
        self, server: Server, claimed: Claimed, service_code: str
    ) -> policy.Outcome | None:
        """Search the authority's list for the report; None if it is not there."""
        listed = await self._list(server, claimed, service_code)
        if not isinstance(listed, list):
            return listed
        for row in listed:
            if mark(claimed) in row.get("description", ""):
                reference = reference_of(row)
                return policy.Delivered(
                    status=200,
                    answer="found in the authority's list",
                    reference=reference,
                    follow=reference is not None,
                )
        if listed and not any("description" in row for row in listed):
            return _in_doubt(200, "GET requests shows no descriptions")
        if len(listed) >= MAX_ROWS:
            return _in_doubt(200, "GET requests has more than one page")
        return None

    async def _list(
        self, server: Server, claimed: Claimed, service_code: str
    ) -> list[Row] | policy.Outcome:
        """The authority's service requests since the delivery was owed, or why there are none."""
        now = self._clock()
        since = now - min(claimed.age_s + MARGIN_S, MAX_WINDOW_S)
        url = server.address(
            "requests",
            service_code=service_code,
            start_date=instant(since),
            end_date=instant(now + MARGIN_S),
        )
        try:
            answer = await self._egress.get(url, _PLEASE, max_bytes=MAX_LIST_BYTES)
        except (EgressRefused, EgressFailed) as error:
            return policy.Deferred(why=f"it may have arrived; looking whether it has: {error}")
        answer = _without(server.api_key, answer)
        seen = policy.outcome_of(answer.status, answer.headers, answer.body, now=now)
        if isinstance(seen, policy.Deferred):
            return replace(seen, why=f"it may have arrived; looking whether it has: {seen.why}")
        if answer.status != 200:
            return _in_doubt(answer.status, f"GET requests answered {answer.status}")
        try:
            return rows(answer.body, "request")
        except NotGeoReport as error:
            return _in_doubt(answer.status, f"GET requests answered with what is {error}")

    # --- what became of it ------------------------------------------------------------------------

    async def exchange(self, server: Server, token: str) -> str | None:
        """The number that a token stands for; None while there is none. Raises `NotAnswered`."""
        found = await self._ask(server, server.address("tokens", token), "request")
        return reference_of(found[0]) if found else None

    async def status(self, server: Server, reference: str) -> News | None:
        """What a service request is at; None if the server does not say. Raises `NotAnswered`."""
        found = await self._ask(server, server.address("requests", reference), "request")
        return news_of(found[0]) if found else None

    async def updates(self, server: Server, *, since: float) -> list[tuple[Row, News]]:
        """All updates since then, the oldest first: FixMyStreet's extension. Raises `NotAnswered`.

        `since` in Unix seconds; of a longer time the last 89 days.
        """
        now = self._clock()
        url = server.address(
            "servicerequestupdates",
            api_key=server.api_key,
            start_date=instant(max(since - MARGIN_S, now - MAX_WINDOW_S)),
            end_date=instant(now + MARGIN_S),
        )
        found = await self._ask(server, url, "request_update")
        found.sort(key=lambda row: row.get("updated_datetime", ""))
        return [(row, news_of(row)) for row in found]

    async def _ask(self, server: Server, url: str, name: str) -> list[Row]:
        try:
            answer = await self._egress.get(url, _PLEASE, max_bytes=MAX_LIST_BYTES)
        except (EgressRefused, EgressFailed) as error:
            raise NotAnswered(str(error)) from None
        if answer.status != 200:
            raise NotAnswered(f"answered {answer.status}", unknown=answer.status == 404)
        try:
            return rows(_without(server.api_key, answer).body, name)
        except NotGeoReport as error:
            raise NotAnswered(f"answered with what is {error}") from None


def form(server: Server, claimed: Claimed, service_code: str) -> bytes:
    """The POST's body: the same for every try."""
    config = server.config
    reporter = claimed.reporter or {}
    first_name, _, last_name = reporter.get("name", "").rpartition(" ")
    fields = [
        ("api_key", server.api_key),
        ("jurisdiction_id", config.jurisdiction_id),
        ("service_code", service_code),
        ("lat", f"{claimed.lat:.7f}"),
        ("long", f"{claimed.lon:.7f}"),
        ("description", description(claimed)),
        ("email", reporter.get("email") or config.email),
        ("first_name", first_name or None),
        ("last_name", last_name or None),
        ("phone", reporter.get("phone")),
        # GeoReport has room for one.
        ("media_url", claimed.photos[0]["url"] if claimed.photos else None),
        *((f"attribute[{code}]", value) for code, value in config.attributes.items()),
    ]
    return urlencode([(name, value) for name, value in fields if value is not None]).encode()


def mark(claimed: Claimed) -> str:
    """What the report is recognised by."""
    return f"[report {claimed.report_id}]"


def description(claimed: Claimed) -> str:
    """The reporter's words, cut where mark and words would be longer than GeoReport allows."""
    end = f"\n\n{mark(claimed)}"
    room = MAX_DESCRIPTION_CHARS - len(end)
    text = claimed.description
    return (text if len(text) <= room else text[: room - 1] + "…") + end


def _accepted(outcome: policy.Delivered, body: bytes) -> policy.Outcome:
    """A 2xx is a success only with what GeoReport promises: a login page is a 200 as well."""
    try:
        found = rows(body, "request")
    except NotGeoReport:
        found = []
    for row in found:
        reference, token = reference_of(row), reference_of(row, "token")
        if reference or token:
            return replace(outcome, reference=reference, token=token, follow=True)
    return policy.Deferred(
        status=outcome.status,
        answer=outcome.answer,
        why=f"answered {outcome.status} without a service_request_id or token",
        unsure=True,
    )


def _in_doubt(status: int, why: str) -> policy.Outcome:
    return policy.Rejected(
        status=status,
        why=f"it may have arrived before, and the authority cannot be asked: {why}; not sent again",
    )


def _errors(body: bytes) -> str:
    """What a server says is wrong, for the record that the authority reads."""
    try:
        said = [row["description"] for row in rows(body, "error") if "description" in row]
    except NotGeoReport:
        return ""
    return f": {'; '.join(said)}" if said else ""


def _without(api_key: str, answer: Answer) -> Answer:
    """An answer that does not quote our key, which would end up in the attempt's record."""
    body = answer.body
    for spelled in {api_key, quote_plus(api_key)} - {""}:
        body = body.replace(spelled.encode(), b"[api_key]")
    return replace(answer, body=body)
