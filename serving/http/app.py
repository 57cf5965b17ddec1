"""The HTTP application, built by a factory."""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi_offline import FastAPIOffline
from starlette.middleware import Middleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from pneumo.serving.access.authentication import needs_keys
from pneumo.serving.access.proxies import PrefixMiddleware
from pneumo.serving.access.security import HeadersMiddleware, build_middleware
from pneumo.serving.contracts import problems
from pneumo.serving.contracts.errors import PneumoError
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.api_description import EXAMPLES
from pneumo.serving.http.middleware import DispatchMiddleware, RequestMiddleware
from pneumo.serving.http.openapi import API_VERSION, install_openapi
from pneumo.serving.http.request_body import BodyMiddleware
from pneumo.serving.http.routes import drift, explain, feedback, health, page, predict, protocol, sign_in
from pneumo.serving.inference.service import Service
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import resolve
from pneumo.serving.telemetry import logs
from pneumo.serving.telemetry.metrics import Metrics

if TYPE_CHECKING:  # SQLAlchemy takes a third of a second to import; only a service with a prediction log needs it
    from pneumo.serving.drift.schedule import Schedule
    from pneumo.serving.predictions.store import LogStore


def create_app(bundle: Bundle, settings: Settings | None = None) -> FastAPI:
    """Build the application that serves a bundle; after startup it loads the network in the background.

    Raises:
        InputError: The settings need keys and there are none, or the log's address is invalid.
        MachineError: The driver of the log's database is not installed.
    """
    service = Service(settings or Settings(), bundle, open_schedule=_open_schedule)

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPIOffline(  # FastAPI's own documentation page loads scripts from a content delivery network
        title="pneumo",
        summary=f"Chest X-ray classification; {NOTICE}",
        description=EXAMPLES,
        version=API_VERSION,
        generate_unique_id_function=lambda route: route.name,  # names of a generated client's functions
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,  # Starlette would redirect to the host that a request names
        middleware=[
            Middleware(PrefixMiddleware, root_path=service.settings.root_path),
            Middleware(HeadersMiddleware),
            Middleware(RequestMiddleware, service=service),
            *build_middleware(service.settings),
            Middleware(BodyMiddleware, service=service),
            Middleware(
                DispatchMiddleware, service=service, direct={predict.PATH: predict.predict, "/v1/explain": None}
            ),
        ],
    )
    app.build_middleware_stack = partial(_build_stack, app)  # type: ignore[method-assign]
    app.state.service = service
    app.state.routes = list(app.routes)  # for the log line of a request that is refused before routing
    for module in (page, sign_in, health, predict, explain, feedback, drift, protocol):
        app.include_router(module.router)
        app.state.routes += module.router.routes
    problems.install_handlers(app)
    install_openapi(app, needs_keys=needs_keys(service.settings))
    return app


def _build_stack(app: FastAPI) -> ASGIApp:
    """Build the layers around the router without FastAPI's outer ones, whose work `RequestMiddleware` does."""
    stack: ASGIApp = ExceptionMiddleware(AsyncExitStackMiddleware(app.router), handlers=app.exception_handlers)
    for middleware, args, options in reversed(app.user_middleware):
        stack = middleware(stack, *args, **options)
    return stack


def _open_schedule(
    settings: Settings, store: "LogStore", metrics: Metrics, champion: Callable[[], Bundle | None]
) -> "Schedule":
    from pneumo.serving.drift.schedule import Schedule

    return Schedule(settings, store, metrics, champion)


def from_environment() -> FastAPI:
    """Build the application from `PNEUMO_*` variables: `uvicorn --factory pneumo.serving.http.app:from_environment`."""
    try:
        settings = Settings.from_environment()
        logs.configure(settings.log_format)
        return create_app(Bundle.open(resolve(settings.model, settings.models_dir)), settings)
    except PneumoError as error:
        print(f"pneumo: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
