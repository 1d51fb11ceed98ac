"""The `webhooks` of the OpenAPI document: what the service posts to councils. Nothing is served.

The worker sends these messages; here they are only described.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header
from pydantic import BaseModel, Field

from api.webhook_schemas import (
    ChallengeAnswer,
    EndpointChallenge,
    EndpointTest,
    MessageAnswer,
    ReportCreated,
    ReportUpdated,
    ReportWithdrawn,
)

router = APIRouter(tags=["webhooks"])


class Signed(BaseModel):
    """The headers of Standard Webhooks 1.0.0."""

    webhook_id: Annotated[
        str, Field(description="The same on every attempt: take each id once.", min_length=1)
    ]
    webhook_timestamp: Annotated[
        int, Field(description="When this attempt was made, in Unix seconds.")
    ]
    webhook_signature: Annotated[
        str,
        Field(description="`v1,` and a signature of `id.timestamp.body`; perhaps several."),
    ]


_NOT_SIGNED = {"description": "The signature is wrong: for you to answer; we take it as a mistake."}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    401: _NOT_SIGNED,
    409: {"description": "You have it already: delivered."},
    410: {"description": "The address is closed: it is suspended, nothing more is sent."},
    422: {"description": "Not yours, with `not_ours`; without it a mistake, tried three times."},
    429: {"description": "Later: `Retry-After` is honoured up to 24 hours."},
    500: {"description": "Later, as any 5xx, and as no answer within 15 seconds."},
}


@router.post(
    "report.created",
    operation_id="reportCreated",
    summary="A report for your authority",
    response_description="Delivered",
    responses=_REFUSALS,
)
async def report_created(
    message: ReportCreated, signed: Annotated[Signed, Header()]
) -> MessageAnswer:
    """Sent until it is delivered or dead. Check the signature on the raw body, then take it."""
    raise NotImplementedError


@router.post(
    "report.updated",
    operation_id="reportUpdated",
    summary="What is known of a report that you have, by now",
    response_description="Delivered",
    responses=_REFUSALS,
)
async def report_updated(message: ReportUpdated, signed: Annotated[Signed, Header()]) -> None:
    """Sent when the reporter or an operator has said that it is yours, or a photo has come."""
    raise NotImplementedError


@router.post(
    "report.withdrawn",
    operation_id="reportWithdrawn",
    summary="A report that you have has gone to another authority",
    response_description="Delivered",
    responses=_REFUSALS,
)
async def report_withdrawn(message: ReportWithdrawn, signed: Annotated[Signed, Header()]) -> None:
    """Sent when the reporter or an operator has said that it is another's."""
    raise NotImplementedError


@router.post(
    "endpoint.challenge",
    operation_id="endpointChallenge",
    summary="Is this address yours?",
    response_description="It is: the endpoint becomes active",
    responses={401: _NOT_SIGNED, 422: {"description": "It is not: the endpoint stays pending."}},
)
async def endpoint_challenge(
    message: EndpointChallenge, signed: Annotated[Signed, Header()]
) -> ChallengeAnswer:
    """Sent when an address is registered, signed as everything is."""
    raise NotImplementedError


@router.post(
    "endpoint.test",
    operation_id="endpointTest",
    summary="A test",
    response_description="It arrived",
    responses={401: _NOT_SIGNED, 422: {"description": "It arrived, and was refused."}},
)
async def endpoint_test(message: EndpointTest, signed: Annotated[Signed, Header()]) -> None:
    """Sent when you or the operator ask for it, signed as everything is. Answer any 2xx."""
    raise NotImplementedError
