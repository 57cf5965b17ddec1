"""Liveness and readiness probes, and metrics for Prometheus."""

import asyncio

from fastapi import APIRouter, Request, Response

from pneumo.serving.contracts.schemas import Status
from pneumo.serving.http.routes.common import ServiceDependency
from pneumo.serving.inference.service import State

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Liveness")
async def healthz(service: ServiceDependency, response: Response) -> Status:
    """Return 200 if the process works; 503 if its model cannot be loaded, so that it is restarted."""
    failed = service.state is State.FAILED
    response.status_code = 503 if failed else 200
    return Status(status="failed" if failed else "ok")


@router.get("/readyz", summary="Readiness")
async def readyz(service: ServiceDependency, response: Response) -> Status:
    """Return 200 if the service takes requests; 503 while the model loads and during a graceful shutdown."""
    response.status_code = 200 if service.state is State.READY else 503
    return Status(status=service.state.value)


@router.get("/metrics", summary="Metrics in Prometheus' text format or as OpenMetrics", response_class=Response)
async def metrics(request: Request, service: ServiceDependency) -> Response:
    """Return requests, times, micro-batches, predictions by class, out-of-distribution images and loaded versions."""
    text, media_type = await asyncio.to_thread(service.metrics.exposition, request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})
