from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from api import examples, schemas
from api.errors import FieldRefused
from api.routes import paging

SHOWN: dict[type[BaseModel], dict[str, Any]] = {
    schemas.ReportIn: examples.REPORT_IN,
    schemas.UploadOut: examples.UPLOAD,
    schemas.PhotoTaken: examples.PHOTO_TAKEN,
    schemas.PhotoOut: examples.PHOTO,
    schemas.DecisionOut: examples.DECISION,
    schemas.Receipt: examples.RECEIPT,
    schemas.ReportOut: examples.REPORT_OUT,
    schemas.CategoryOut: examples.CATEGORY,
    schemas.CategoryList: examples.CATEGORY_LIST,
    schemas.AuthorityOut: examples.AUTHORITY,
    schemas.AuthorityDetail: examples.AUTHORITY_DETAIL,
    schemas.AuthorityPage: examples.AUTHORITY_PAGE,
    schemas.EndpointOut: examples.ENDPOINT,
    schemas.EndpointCreated: examples.ENDPOINT_CREATED,
    schemas.EndpointRotated: examples.ENDPOINT_ROTATED,
    schemas.EndpointList: examples.ENDPOINT_LIST,
    schemas.DeliveryOut: examples.DELIVERY,
    schemas.DeliveryPage: examples.DELIVERY_PAGE,
    schemas.Redelivered: examples.REDELIVERED,
    schemas.EndpointHealth: examples.ENDPOINT_HEALTH,
    schemas.AuditPage: examples.AUDIT_PAGE,
    schemas.Health: examples.HEALTH,
    schemas.Readiness: examples.READINESS,
}


@pytest.mark.parametrize("model", SHOWN, ids=lambda model: model.__name__)
def test_examples_are_what_the_models_say(model: type[BaseModel]) -> None:
    value = model.model_validate(SHOWN[model])
    assert value.model_dump(mode="json") == SHOWN[model]


def test_the_example_of_an_unready_service() -> None:
    schemas.Readiness.model_validate(examples.NOT_READY)


def report(**fields: Any) -> schemas.ReportIn:
    return schemas.ReportIn.model_validate({**examples.REPORT_IN, **fields})


def test_texts_are_stripped_and_lines_end_alike() -> None:
    assert report(description="\n a\r\nb\tc \n").description == "a\nb\tc"
    assert report(description="  " + "x" * 4000 + "\n").description == "x" * 4000


def test_other_scripts_and_signs_are_texts_too() -> None:
    for text in ("ťëşţ", "坑洞", "🕳️ 👩‍👩‍👧", "مطبّ"):
        assert report(description=text).description == text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("2026-11-02T08:15:00Z", datetime(2026, 11, 2, 8, 15, tzinfo=UTC)),
        ("2026-11-02t08:15:00z", datetime(2026, 11, 2, 8, 15, tzinfo=UTC)),
        ("2026-11-02T10:15:00.5+02:00", datetime(2026, 11, 2, 8, 15, 0, 500_000, tzinfo=UTC)),
    ],
)
def test_times_become_utc(given: str, expected: datetime) -> None:
    observed_at = report(observed_at=given).observed_at
    assert observed_at == expected
    assert observed_at is not None
    assert observed_at.tzinfo is UTC


def test_the_digest_is_of_what_is_said() -> None:
    said = report().sha256()
    assert report(observed_at="2026-11-02T10:15:00+02:00").sha256() == said
    assert report(accuracy_m=8.0).sha256() == said
    assert report(answers={"cycle_route": True, "depth_cm": 6}).sha256() == said
    assert report(description=" Deep hole in the left lane, about 40 cm wide. ").sha256() == said
    for changed in (
        {"accuracy_m": None},
        {"lon": 2.1200000000000006},
        {"description": "deep hole"},
        {"category": "footway"},
        {"observed_at": None},
        {"answers": {"depth_cm": 6.5, "cycle_route": True}},
        {"answers": {"depth_cm": 6.0}},
        {"answers": {}},
        {"contact": None},
        {"contact": {**examples.CONTACT, "notify": False}},
        {"duplicate_of": examples.REPORT_ID},
        {"photos": []},
        {"photos_public": True},
    ):
        assert report(**changed).sha256() != said


def test_the_digest_stays_what_stored_ones_are() -> None:
    """Changed, every retry under way would be refused as another report."""
    assert report(answers={}, contact=None, photos=[]).sha256().hex() == (
        "a944f2ab6ba222d02260044d301b3f91d7c0b677e14e8cebfac291beb00fd0cf"
    )
    assert report(contact=None, photos=[]).sha256().hex() == (  # with answers
        "f837e4c0d1daa6b5bd88efad9d65480406bd95ec878243995ba8f4bdd2b8ee49"
    )


def test_receipts_are_told_in_words() -> None:
    decision = schemas.DecisionOut.model_validate(examples.DECISION)
    facts: dict[str, Any] = {
        "report_id": UUID(examples.REPORT_ID),
        "received_at": datetime(2026, 11, 2, 8, 15, 4, 120_000, tzinfo=UTC),
        "decision": decision,
    }
    token = examples.RECEIPT["links"]["track"].removeprefix("/v1/track/")
    queued = schemas.Receipt.of(**facts, held=False, token=token)
    assert queued.model_dump(mode="json") == examples.RECEIPT
    held = schemas.Receipt.of(**facts, held=True)
    assert held.forwarding == "held"
    assert held.message == (
        "Received. Hearthmere has not told us yet where it takes such reports; yours is kept and "
        "forwarded as soon as it does."
    )
    for is_held in (True, False):
        rehearsed = schemas.Receipt.of(**facts, held=is_held, rehearsal=True)
        assert rehearsed.message == (
            "Received. This is a rehearsal: nothing is sent to Hearthmere."
        )


@pytest.mark.parametrize(
    "example", [examples.ENDPOINT_IN, examples.OPEN311_ENDPOINT_IN, examples.MAIL_ENDPOINT_IN]
)
def test_examples_of_endpoints_are_taken(example: dict[str, Any]) -> None:
    taken = TypeAdapter[Any](schemas.EndpointIn).validate_python(example)
    assert (taken.channel, taken.url) == (example["channel"], example["url"])


def test_requests_refuse_and_answers_drop_what_nobody_documented() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        report(colour="red")
    shown = schemas.EndpointOut.model_validate({**examples.ENDPOINT, "secret": "whsec_x"})
    assert "secret" not in shown.model_dump()


# --- cursors --------------------------------------------------------------------------------------

SHAPE = TypeAdapter(tuple[schemas.Name, UUID])
KEY = ("Hearthmere", UUID(examples.AUTHORITY_ID))


def test_a_cursor_comes_back_as_it_was() -> None:
    rows: Any = [{"name": "Hearthmere", "id": KEY[1]}, {"name": "Peatholt", "id": KEY[1]}]
    page, cursor = paging.cut(rows, limit=1, key=("name", "id"), shape=SHAPE)
    assert page == rows[:1]
    assert paging.decode(cursor, SHAPE) == KEY
    assert paging.cut(rows, limit=2, key=("name", "id"), shape=SHAPE) == (rows, None)
    assert paging.decode(None, SHAPE) is None


@pytest.mark.parametrize("cursor", ["", "!", "bnVsbA==", "W10=", "é", "WyJhIiwgImIiXQ=="])
def test_a_made_up_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(FieldRefused, match="next_cursor"):
        paging.decode(cursor, SHAPE)
