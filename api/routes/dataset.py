"""`GET /v1/dataset`: which boundary dataset decides, and whose data it is made from.

It may change at any time, so an answer is kept only to be asked about again by its entity tag.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from api import errors, schemas
from api.routes.wiring import Calling, Wired, names

router = APIRouter(prefix="/v1", tags=["locate"])

CACHE_CONTROL = "private, no-cache"
HEADERS = {
    "ETag": {"description": "Of this time in force.", "schema": {"type": "string"}},
    "Cache-Control": {"description": CACHE_CONTROL, "schema": {"type": "string"}},
}


@router.get(
    "/dataset",
    operation_id="getDataset",
    summary="Which boundary dataset decides",
    response_model=schemas.DatasetOut,
    responses={
        200: {"headers": HEADERS},
        304: {"description": "Nothing has changed", "headers": HEADERS},
        **errors.documented(errors.VALIDATION_FAILED, errors.NoActiveDataset, *errors.KEYED),
    },
)
async def get_dataset(
    _asked: Annotated[schemas.Asked, Query()],
    response: Response,
    wired: Wired,
    _caller: Calling,
    if_none_match: Annotated[
        str | None, Header(description="The `ETag` of the answer that you have.")
    ] = None,
) -> schemas.DatasetOut | Response:
    """Show the dataset in force: its layers, its sources, and the attributions to display.

    During a swap another process may still decide by the one before, for seconds; each decision
    names its own.
    """
    table, since = wired.live.require(), wired.live.since
    assert since is not None  # noqa: S101 - set with the table
    headers = {
        "ETag": f'"{table.dataset_id}-{since.timestamp():.6f}"',
        "Cache-Control": CACHE_CONTROL,
    }
    if if_none_match is not None and names(if_none_match, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return schemas.DatasetOut.of(table.version, since, table.manifest)
