"""The service: an application factory, so that nothing happens at import."""

import contextlib
import sys
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from serving import problems
from serving.bundle import Bundle
from serving.errors import PneumoError
from serving.middleware import RequestMiddleware
from serving.models import resolve
from serving.routes import health, metrics, predict
from serving.schemas import NOTICE
from serving.service import Service
from serving.settings import Settings


def create_app(bundle: Bundle, settings: Settings | None = None) -> FastAPI:
    """Make the application that serves a bundle; the network is loaded once it starts, in the background."""
    service = Service(settings or Settings(), bundle)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPIOffline(  # FastAPI's own page of docs loads its scripts from a content delivery network
        title="pneumo",
        summary="Chest X-ray classification",
        description=f"{NOTICE[0].upper()}{NOTICE[1:]}.",
        version=f"{bundle.info.name} {bundle.info.version}",
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    for routes in (predict, health, metrics):
        app.include_router(routes.router)
    app.add_middleware(RequestMiddleware, service=service)
    problems.install(app)
    return app


def from_environment() -> FastAPI:
    """The application for `uvicorn --factory serving.app:from_environment`, set up by `PNEUMO_*` variables."""
    try:
        settings = Settings.from_environment()
        return create_app(Bundle.open(resolve(settings.model, settings.models_dir)), settings)
    except PneumoError as error:
        print(f"pneumo: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
