from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api import errors, telemetry
from georouter.model import InvalidCoordinate, UnknownCategory

SCOPE = {errors.CORRELATION_KEY: "id-1"}


def rendered(error: Exception, **also: Any) -> tuple[int, dict[str, Any], dict[str, str]]:
    response = errors.respond(SCOPE, error, **also)
    assert response.media_type == "application/problem+json"
    return response.status_code, json.loads(bytes(response.body)), dict(response.headers)


def test_both_ends_agree_on_where_the_correlation_id_is() -> None:
    assert errors.CORRELATION_KEY == telemetry.CORRELATION_KEY


def test_a_refusal_tells_what_and_where() -> None:
    status, body, headers = rendered(errors.FieldRefused("url", "is no address"))
    assert status == 422
    assert body == {
        "type": "urn:georouter:problem:validation-failed",
        "title": "The request does not validate",
        "status": 422,
        "detail": "url: is no address",
        "errors": [{"field": "url", "message": "is no address"}],
    }
    assert "retry-after" not in headers


def test_further_members_are_shown() -> None:
    _, body, _ = rendered(UnknownCategory("ufo", ("pothole", "litter")))
    assert body["type"].endswith(":unknown-category")
    assert body["known"] == ["pothole", "litter"]


def test_a_coordinate_names_its_field() -> None:
    _, body, _ = rendered(InvalidCoordinate("lat", "must be finite"))
    assert body["errors"] == [{"field": "lat", "message": "must be finite"}]


@pytest.mark.parametrize("kind", [errors.KeyMissing, errors.KeyRevoked])
def test_a_401_challenges(kind: type[errors.ApiError]) -> None:
    status, _, headers = rendered(kind("no"))
    assert status == 401
    invalid = 'error="invalid_token"' in headers["www-authenticate"]
    assert invalid is (kind is not errors.KeyMissing)


def test_the_unforeseen_shows_the_correlation_id_and_nothing_else() -> None:
    status, body, _ = rendered(RuntimeError("the password is hunter2"))
    assert status == 500
    assert body["correlation_id"] == "id-1"
    assert "hunter2" not in json.dumps(body)


def test_a_row_of_another_room_is_used() -> None:
    error = ConnectionError("10.0.0.7 refused")
    rows = {**errors.TABLE, ConnectionError: errors.DATABASE_UNAVAILABLE}
    status, body, headers = rendered(error, rows=rows)
    assert status == 503
    assert headers["retry-after"] == "5"
    assert body["correlation_id"] == "id-1"
    assert "10.0.0.7" not in json.dumps(body)


def test_subclasses_have_the_row_of_their_family() -> None:
    class Odd(errors.NotFound):
        pass

    assert rendered(Odd("gone"))[0] == 404


@pytest.mark.parametrize(
    ("status", "slug"),
    [(400, "bad-request"), (404, "not-found"), (413, "body-too-large"), (418, "bad-request")],
)
def test_the_framework_s_refusals(status: int, slug: str) -> None:
    got, body, headers = rendered(HTTPException(status, headers={"X-Why": "because"}))
    assert (got, body["status"]) == (status, status)
    assert body["type"].endswith(f":{slug}")
    assert body["detail"]
    assert headers["x-why"] == "because"


def test_the_framework_s_failures_hide_their_text() -> None:
    _, body, _ = rendered(HTTPException(502, "upstream 10.0.0.7"))
    assert body["correlation_id"] == "id-1"
    assert "10.0.0.7" not in json.dumps(body)


def invalid(*items: dict[str, Any]) -> RequestValidationError:
    return RequestValidationError([{"msg": "is wrong", "type": "x", **item} for item in items])


def test_validation_names_fields_as_the_client_knows_them() -> None:
    error = invalid(
        {"loc": ("body", "lon")},
        {"loc": ("query", "limit")},
        {"loc": ("body", "codes", 0, "code")},
        {"loc": ("body",)},
        {"loc": ("body", "x"), "type": "extra_forbidden"},
        {"loc": ("body", "y"), "type": "missing"},
        {"loc": ("body", "z"), "msg": "Value error, must be a tone", "type": "value_error"},
    )
    _, body, _ = rendered(error)
    assert [tuple(one.values()) for one in body["errors"]] == [
        ("lon", "is wrong"),
        ("limit", "is wrong"),
        ("codes.0.code", "is wrong"),
        ("body", "is wrong"),
        ("x", "is not a field of this request"),
        ("y", "is required"),
        ("z", "must be a tone"),
    ]
    assert body["detail"].endswith("codes.0.code: is wrong; and 4 more")


def test_what_a_client_sent_is_quoted_safely() -> None:
    _, body, _ = rendered(invalid({"loc": ("body", "\ud800" * 9999)}))
    assert body["errors"][0]["field"] == "?" * 500


def test_json_that_is_none_says_where() -> None:
    error = invalid({"loc": ("body", 7), "type": "json_invalid", "ctx": {"error": "Expecting ','"}})
    status, body, _ = rendered(error)
    assert status == 400
    assert body["detail"] == "the body is not JSON: Expecting ',' at character 7"


def test_documentation_groups_problems_by_status() -> None:
    responses = errors.documented(errors.SwappedAxes, errors.VALIDATION_FAILED, errors.NotFound)
    assert list(responses) == [422, 404]
    examples = responses[422]["content"]["application/problem+json"]["examples"]
    assert list(examples) == ["swapped-axes", "validation-failed"]
