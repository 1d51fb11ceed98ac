"""The whole OpenAPI document against the running application: every operation, every role.

Requests are generated from the document, sane ones and broken ones, in a fixed order. Whatever the
application answers must be in the document: its status, media type, headers and form.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.support.postgres import database
from tests.support.web import ROLES, Web, web

SNAPSHOT = Path(__file__).parents[1] / "guarantees" / "openapi.json"
DOCUMENT = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
for path in DOCUMENT["paths"].values():
    for described in path.values():
        described.pop("security", None)  # roles are ours to choose
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = {one.ok().label: one.ok() for one in SCHEMA.get_all_operations()}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
# Another precondition of uploads, looked at before what they say
SCHEMA.config.checks.negative_data_rejection.expected_statuses += ["412", "410"]
# What is wrong with a draft is said of that draft.
PER_ITEM = "POST /v1/reports:batch"
# Of each kind; what the coverage of the document asks for comes on top.
EXAMPLES = 15
MOST_COVERED = 60


@schemathesis.serializer("application/offset+octet-stream")
def _bytes(_context: Any, value: Any) -> Any:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


@pytest.fixture(scope="module")
async def site(
    cluster_url: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Web, dict[str, str]]]:
    """The application, and ids that stand for something in it, by the names of path parameters."""
    async with (
        database(cluster_url, template=template) as dsn,
        web(dsn, tmp_path_factory.mktemp("site")) as site,
    ):
        yield site, _fill(site)


def _fill(site: Web) -> dict[str, str]:
    """A report, a photo and an endpoint."""

    def post(path: str, role: str, **sent: Any) -> Any:
        answer = requests.post(f"{site.base}{path}", headers=site.headers(role), **sent, timeout=30)
        assert answer.status_code == 201, answer.text
        return answer.json()

    there = {"authority_id": site.authority}
    endpoint = {"channel": "webhook", "url": "http://127.0.0.1:9/intake"}
    path = f"/v1/authorities/{site.authority}/endpoints"
    there["endpoint_id"] = post(path, "operator", json=endpoint)["id"]
    example = DOCUMENT["components"]["schemas"]["ReportIn"]["examples"][0]
    report = {**example, "lon": 2.0, "lat": 55.0, "answers": {}, "photos": []}
    report = {name: report[name] for name in ("lon", "lat", "category", "description")}
    there["report_id"] = post("/v1/reports", "app", json=report)["id"]
    return there


def _breaks_path(case: Case) -> bool:
    assert case.meta is not None
    where = case.meta.components.get(ParameterLocation.PATH)
    return where is not None and where.mode is GenerationMode.NEGATIVE


@pytest.mark.parametrize("label", OPERATIONS)
def test_whatever_is_asked_the_answer_is_in_the_document(
    site: tuple[Web, dict[str, str]], label: str
) -> None:
    served, there = site
    operation = OPERATIONS[label]
    session = requests.Session()

    def ask(case: Case, role: str | None, *, real: bool) -> None:
        # Where the path is broken on purpose it stays so.
        if real and not _breaks_path(case):
            for name in set(case.path_parameters or {}) & there.keys():
                case.path_parameters[name] = there[name]
        headers = served.headers(role)
        if (case.headers or {}).get("Idempotency-Key") and label != "POST /v1/photos":
            headers["Idempotency-Key"] = str(uuid4())
        answer = case.call(base_url=served.base, session=session, headers=headers, timeout=30)
        checks = [one for one in CHECKS if label != PER_ITEM or one is not negative_data_rejection]
        case.validate_response(answer, checks=checks, headers=headers)

    bounded = settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    roles = st.sampled_from([*ROLES, *ROLES, None])
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

        @bounded
        @given(case=operation.as_strategy(mode), role=roles, real=st.booleans())
        def generated(case: Case, role: str | None, real: bool) -> None:  # noqa: FBT001
            ask(case, role, real=real)

        # There are operations that can be asked nothing wrong.
        with suppress(*([Unsatisfiable] if mode is GenerationMode.NEGATIVE else [])):
            generated()
    covered = SCHEMA.iter_coverage_cases(
        operation,
        generation_modes=list(GenerationMode),
        generation_config=SCHEMA.config.generation,
    )
    for n, case in zip(range(MOST_COVERED), covered, strict=False):
        ask(case, ROLES[n % 3], real=bool(n % 2))
