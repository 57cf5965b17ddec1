"""Liveness and readiness probes."""

from fastapi import APIRouter, Response

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
