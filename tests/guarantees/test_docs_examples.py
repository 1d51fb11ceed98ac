"""The examples that a reader copies from the documents are taken by the service as they stand."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import TypeAdapter

from api.delivery import policy, signing
from api.delivery.channels.webhook import payload
from api.delivery.outbox import Claimed
from api.delivery.worker import linked
from api.links import PhotoLinks
from api.schemas import EndpointIn, ReportIn, UpdateIn
from api.vault import Vault, new_key
from api.webhook_schemas import Message
from tests.support.rows import DECISION, RECEIVED_AT

ROOT = Path(__file__).parents[2]
ID = UUID(int=1)


def posted(document: str) -> list[str]:
    """What the curl commands of a document send."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(r"^ +-d '(.+)'$", text, re.MULTILINE)


def shape(value: Any) -> Any:
    """The names in a JSON value, however deep; empty lists have none."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return [shape(one) for one in value[:1]] if isinstance(value, list) else None


def test_what_an_app_posts() -> None:
    (body,) = posted("README.md")
    ReportIn.model_validate_json(body)


def test_how_a_council_registers_and_tells() -> None:
    registration, update = posted("docs/webhooks.md")
    TypeAdapter(EndpointIn).validate_json(registration)
    UpdateIn.model_validate_json(update)


def test_how_a_council_says_that_it_is_not_theirs() -> None:
    text = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    [answer] = re.findall(r"```json\n(\{\"not_ours.*)\n```", text)
    outcome = policy.outcome_of(200, {}, answer.encode(), now=0.0)
    assert isinstance(outcome, policy.NotOurs)
    assert outcome.named == "E08000010"


def test_how_other_channels_are_registered() -> None:
    bodies = posted("docs/channels.md")
    taken = [TypeAdapter[Any](EndpointIn).validate_json(body).channel for body in bodies]
    assert taken == ["open311", "mail"]


def test_how_a_council_answers_the_challenge() -> None:
    text = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    [challenge] = re.findall(r'```json\n(\{"type": "endpoint.challenge".*)\n```', text)
    [program] = re.findall(
        r"```python\n(from standardwebhooks[^`]*?def receive.*?)```", text, re.DOTALL
    )
    names: dict[str, Any] = {"store": lambda report: f"A-{report['id']}"}
    exec(program, names)  # noqa: S102 - our own text
    secret = signing.new_secret(lambda size: bytes(range(size)))

    def say(body: bytes) -> tuple[int, dict[str, str]]:
        now = int(time.time())
        headers = signing.headers([secret], message_id="m", timestamp=now, body=body)
        answer: tuple[int, dict[str, str]] = names["receive"](secret, headers, body)
        return answer

    assert say(challenge.encode()) == (200, json.loads(challenge)["data"])
    assert say(b'{"type": "report.created", "data": {"report": {"id": 7}}}')[1] == {
        "reference": "A-7"
    }
    assert say(b'{"type": "endpoint.test"}') == (200, {})


def test_what_a_council_receives() -> None:
    candidate: dict[str, Any] = {
        "code": "X",
        "name": "X",
        "layer": "X",
        "reason": "X",
        "distance_m": 0.0,
    }
    candidate |= {"road": None, "agreement": None, "succeeds": None}
    claimed = Claimed(
        delivery_id=ID,
        lease_token=ID,
        attempt=1,
        rejections=0,
        age_s=0.0,
        endpoint_id=ID,
        channel="webhook",
        url="https://council.example",
        secret="",
        report_id=ID,
        received_at=RECEIVED_AT,
        observed_at=None,
        lon=0.0,
        lat=0.0,
        accuracy_m=None,
        category="pothole",
        description="A hole",
        answers={"depth_cm": 6.0, "cycle_route": True},
        decision={**DECISION, "candidates": [candidate]},
        authority_id=ID,
        authority_name="X",
        photos=[{"id": str(ID), "width": 2048, "height": 1536}],
    )
    claimed = linked(claimed, PhotoLinks("https://x", Vault([new_key()], where="here"), lambda: 0))
    text = (ROOT / "docs" / "webhooks.md").read_text(encoding="utf-8")
    example = re.search(r'```json\n(\{\n  "type": "report.created".*?)```', text, re.DOTALL)
    assert example is not None
    assert shape(json.loads(example[1])) == shape(json.loads(payload(claimed)))
    TypeAdapter(Message).validate_json(re.sub("…", str(ID), example[1]))
