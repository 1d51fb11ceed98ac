"""`/metrics`: the installation's figures for Prometheus. No key, and not part of the API."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from api.routes.wiring import Wired

router = APIRouter()


@router.get("/metrics", include_in_schema=False)
async def get_metrics(wired: Wired) -> Response:
    """Show the figures, a few seconds old at most."""
    return Response(await wired.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})
