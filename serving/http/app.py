"""The service: an application factory, so that nothing happens at import."""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware

from pneumo.serving.access.security import HeadersMiddleware, build_middleware
from pneumo.serving.contracts import problems
from pneumo.serving.contracts.errors import PneumoError
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.api_description import EXAMPLES
from pneumo.serving.http.middleware import RequestMiddleware, SheddingMiddleware
from pneumo.serving.http.routes import drift, explain, feedback, health, metrics, page, predict, protocol
from pneumo.serving.inference.service import Service
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import resolve
from pneumo.serving.telemetry import logs
from pneumo.serving.telemetry.metrics import Metrics

if TYPE_CHECKING:  # SQLAlchemy takes a third of a second to import, for those who log
    from pneumo.serving.drift.schedule import Schedule
    from pneumo.serving.predictions.store import LogStore

_KEYS = [
    Security(HTTPBearer(auto_error=False, description="A key of `pneumo keys add`.")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="The same in a header of its own.")),
]
"""For the documentation alone: `pneumo.serving.access.security` asks for keys before a route is looked for."""


def create_app(bundle: Bundle, settings: Settings | None = None) -> FastAPI:
    """Make the application that serves a bundle; the network is loaded once it starts, in the background.

    Raises:
        InputError: Settings that cannot be: keys are asked for and there are none, or the log's address is wrong.
        MachineError: The driver of the log's database is not installed.
    """
    service = Service(settings or Settings(), bundle, open_schedule=_open_schedule)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPIOffline(  # FastAPI's own page of docs loads its scripts from a content delivery network
        title="pneumo",
        summary=f"Chest X-ray classification; {NOTICE}",
        description=EXAMPLES,
        version=f"{bundle.info.name} {bundle.info.version}",
        redoc_url=None,
        lifespan=lifespan,
        middleware=[
            Middleware(HeadersMiddleware),
            Middleware(RequestMiddleware, service=service),
            *build_middleware(service.settings),
            Middleware(SheddingMiddleware, service=service),
        ],
    )
    app.state.service = service
    for routes in (page, health, metrics):
        app.include_router(routes.router)
    for routes in (predict, explain, feedback, drift, protocol):
        app.include_router(routes.router, dependencies=_KEYS)
    problems.install_handlers(app)
    return app


def _open_schedule(
    settings: Settings, store: "LogStore", metrics: Metrics, champion: Callable[[], Bundle | None]
) -> "Schedule":
    from pneumo.serving.drift.schedule import Schedule

    return Schedule(settings, store, metrics, champion)


def from_environment() -> FastAPI:
    """Make the application from `PNEUMO_*` variables: `uvicorn --factory pneumo.serving.http.app:from_environment`."""
    try:
        settings = Settings.from_environment()
        logs.configure(settings.log_format)
        return create_app(Bundle.open(resolve(settings.model, settings.models_dir)), settings)
    except PneumoError as error:
        print(f"pneumo: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
