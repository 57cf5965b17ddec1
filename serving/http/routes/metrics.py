"""`/metrics`, for Prometheus."""

import asyncio

from fastapi import APIRouter, Request, Response

from pneumo.serving.http.routes.common import ServiceDependency

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Metrics in Prometheus' text format or as OpenMetrics", response_class=Response)
async def metrics(request: Request, service: ServiceDependency) -> Response:
    """Return requests, times, micro-batches, predictions by class, out-of-distribution images and loaded versions."""
    text, media_type = await asyncio.to_thread(service.metrics.exposition, request.headers.get("accept", ""))
    return Response(text, headers={"Content-Type": media_type})
