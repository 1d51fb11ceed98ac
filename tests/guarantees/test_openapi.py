"""The API's description is complete, and changes only on purpose."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from api.webhook_schemas import json_schema
from tests.guarantees.openapi import SNAPSHOT, WEBHOOKS, describe


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return describe()


# What under /v1 takes no key: signed and private links are secrets themselves, and the others show
# nothing that needs one.
OPEN = {
    "GET /v1/track/{token}",
    "GET /v1/track/{token}/events",
    "POST /v1/track/{token}/still-there",
    "POST /v1/track/{token}/unsubscribe",
    "GET /v1/mail/{token}/confirm",
    "POST /v1/mail/{token}/confirm",
    "GET /v1/mail/{token}/unsubscribe",
    "POST /v1/mail/{token}/unsubscribe",
    "GET /v1/photos/{photo_id}/file",
    "GET /v1/photos/{photo_id}/public",
    "OPTIONS /v1/photos/uploads",
}


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def has_example(content: dict[str, Any], document: dict[str, Any]) -> bool:
    if "example" in content or content.get("examples"):
        return True
    schema = content["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return bool(schema.get("examples"))


def test_the_description_is_the_one_agreed_on(document: dict[str, Any]) -> None:
    agreed = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert document == agreed, "if this is on purpose: python -m tests.guarantees.openapi"


def test_the_schema_of_the_webhooks_is_the_one_agreed_on() -> None:
    agreed = json.loads(WEBHOOKS.read_text(encoding="utf-8"))
    assert json_schema() == agreed, "if this is on purpose: python -m tests.guarantees.openapi"


def test_webhooks_are_described(document: dict[str, Any]) -> None:
    types = {
        schema["properties"]["type"]["const"]
        for schema in json_schema()["$defs"].values()
        if "type" in schema.get("properties", {})
    }
    assert document["webhooks"].keys() == types
    for name, methods in document["webhooks"].items():
        operation = methods["post"]
        assert operation["summary"], name
        assert operation["description"], name
        headers = {one["name"] for one in operation["parameters"]}
        assert headers == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        (body,) = operation["requestBody"]["content"].values()
        assert has_example(body, document), name


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for name in names:
        assert name.isalpha()
        assert name[0].islower()


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        assert operation["summary"], where
        assert operation["description"], where
        assert operation["tags"], where


def test_every_body_and_success_has_an_example(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        bodies = [operation["requestBody"]] if "requestBody" in operation else []
        bodies += [
            response for status, response in operation["responses"].items() if status[0] == "2"
        ]
        for body in bodies:
            for content in body.get("content", {}).values():
                assert has_example(content, document), where


def test_every_failure_is_a_documented_problem(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        failures = {
            status: response
            for status, response in operation["responses"].items()
            if status[0] in "45"
        }
        if "/v1/" not in where:
            continue
        expected = {"500"} if where in OPEN else {"401", "422", "500", "503"}
        assert expected <= failures.keys(), where
        for status, response in failures.items():
            (content,) = response["content"].items()
            assert content[0] == "application/problem+json", where
            assert content[1]["schema"] == {"$ref": "#/components/schemas/Problem"}
            for example in content[1]["examples"].values():
                assert example["value"]["status"] == int(status)


def test_every_operation_under_v1_takes_a_key(document: dict[str, Any]) -> None:
    for where, operation in operations(document):
        keyed = "/v1/" in where and where not in OPEN
        expected: Any = [{"ApiKey": []}] if keyed else None
        assert operation.get("security") == expected, where


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    for reference in references(document):
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
    assert "HTTPValidationError" not in document["components"]["schemas"]
