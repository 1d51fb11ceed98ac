"""`GET /v1/categories`: what can be reported, and what more is worth asking.

The list changes with the rules and with nothing else, so their version is its entity tag.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from api import errors, schemas
from api.routes.wiring import Calling, Wired, names_tag

router = APIRouter(prefix="/v1", tags=["categories"])

ETAG = {"ETag": {"description": "Of the rules' version.", "schema": {"type": "string"}}}


@router.get(
    "/categories",
    operation_id="listCategories",
    summary="What can be reported",
    response_model=schemas.CategoryList,
    responses={
        200: {"headers": ETAG},
        304: {"description": "Nothing has changed", "headers": ETAG},
        **errors.documented(errors.VALIDATION_FAILED, *errors.KEYED),
    },
)
async def list_categories(
    _asked: Annotated[schemas.Asked, Query()],
    response: Response,
    wired: Wired,
    _caller: Calling,
    if_none_match: Annotated[
        str | None, Header(description="The `ETag` of the list that you have.")
    ] = None,
) -> schemas.CategoryList | Response:
    """List the categories with their questions, in the order in which to show them.

    Each `answers_schema` is a JSON Schema of the `answers` that a report in the category may carry.
    """
    rules = wired.live.rules
    etag = f'"{rules.version}"'
    if if_none_match is not None and names_tag(if_none_match, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    items = [schemas.CategoryOut.of(category) for category in rules.categories.values()]
    return schemas.CategoryList(version=rules.version, items=items)
