"""`/v1/reports:batch`: the queue of a device that was offline, report by report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from api import db, errors, schemas
from api.auth import Caller, Role, require_role
from api.rates import CLIENT
from api.routes.reports import take
from api.routes.wiring import Calling, Wired, Wiring, json_only

router = APIRouter(prefix="/v1", tags=["reports"])

PATH = "/v1/reports:batch"
ROWS = {**errors.TABLE, db.DatabaseUnavailable: errors.DATABASE_UNAVAILABLE}

log = structlog.get_logger(__name__)


@router.post(
    "/reports:batch",
    operation_id="postReports",
    summary="Post a queue of reports",
    dependencies=[Depends(json_only)],
    response_description="The answer to each; some may be refused",
    responses=errors.documented(
        errors.MALFORMED_JSON,
        errors.RoleForbidden,
        errors.BODY_TOO_LARGE,
        errors.MediaTypeUnsupported,
        errors.VALIDATION_FAILED,
        *errors.KEYED,
    ),
)
async def post_reports(
    body: schemas.BatchIn, request: Request, wired: Wired, caller: Calling
) -> schemas.BatchOut:
    """Store reports one after the other, each as `POST /v1/reports` would with its key.

    One that is refused, or no report at all, spoils no other: `status` and `problem` are what it
    would have got by itself. A batch that was cut off is sent again as it was: what was stored
    answers as it did.
    """
    require_role(caller, Role.APP)
    wired.rates.charge(request.scope, more=len(body.items) - 1)
    return schemas.BatchOut(
        items=[await _answer(item, wired, caller, request.scope) for item in body.items]
    )


async def _answer(
    item: object, wired: Wiring, caller: Caller, scope: Mapping[str, Any]
) -> schemas.BatchItem:
    failure: Exception
    try:
        draft = schemas.DraftIn.model_validate(item)
        posted, replayed = await take(
            draft.report, draft.idempotency_key, wired, caller, client=scope.get(CLIENT)
        )
    except ValidationError as error:
        # Fields go by the names that they have in a report of its own.
        found = [{**one, "loc": one["loc"][1:] or one["loc"]} for one in error.errors()]
        failure = RequestValidationError(found, body=item)
    except Exception as error:
        failure = error
        if not isinstance(error, tuple(ROWS)):
            log.exception("batch item failed")
    else:
        return schemas.BatchItem(status=201, replayed=replayed, receipt=posted, problem=None)
    row, document, _ = errors.describe(scope, failure, ROWS)
    problem = schemas.Problem(**document)
    return schemas.BatchItem(status=row.status, replayed=False, receipt=None, problem=problem)
