"""Liveness and readiness probes, and metrics for Prometheus."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from pneumo.serving.contracts.schemas import Status
from pneumo.serving.http.routes.common import ServiceDependency
from pneumo.serving.inference.service import State

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Liveness", responses={503: {"model": Status}})
async def healthz(service: ServiceDependency, response: Response) -> Status:
    """Return 200 if the process works; 503 if its model cannot be loaded, so that it is restarted.

    `degraded` means that it predicts, but that rows of the prediction log wait on disk: the log lines say how to go on.
    """
    failed = service.state is State.FAILED
    response.status_code = 503 if failed else 200
    degraded = service.log is not None and service.log.is_away
    return Status(status="failed" if failed else "degraded" if degraded else "ok")


@router.get("/readyz", summary="Readiness", responses={503: {"model": Status}})
async def readyz(service: ServiceDependency, response: Response) -> Status:
    """Return 200 if the service takes requests; 503 while the model loads and during a graceful shutdown."""
    response.status_code = 200 if service.state is State.READY else 503
    return Status(status=service.state.value)


_TEXT = {"schema": {"type": "string"}}
_EXPOSITION: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/plain": _TEXT, "application/openmetrics-text": _TEXT}}
}


@router.get(
    "/metrics",
    summary="Metrics in Prometheus' text format or as OpenMetrics",
    response_class=Response,
    responses=_EXPOSITION,
)
async def metrics(request: Request, service: ServiceDependency) -> Response:
    """Return requests, times, micro-batches, predictions by class, out-of-distribution images and loaded versions."""
    text, media_type = await asyncio.to_thread(service.metrics.exposition, request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})
