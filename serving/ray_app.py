"""The service on a Ray cluster: `serve run pneumo.serving.ray_app:app [model=champion ...]`.

Settings come from `PNEUMO_*` on the machine that runs the command, and travel with the application; paths must lead to
the same files on every machine. `PNEUMO_RAY_MIN_REPLICAS` and `PNEUMO_RAY_MAX_REPLICAS` bound the number of replicas.
Each is a process with `PNEUMO_THREADS` cores (1 by default). Replicas share only the registry and the prediction log.

Ray's proxy listens on 127.0.0.1 by default, like the service. If it listens elsewhere, set `PNEUMO_HOST` to that
address, so that requests need keys. Each replica counts for itself: `/metrics` through the proxy shows one replica, and
`process_start_time_seconds` tells which.

This is the only module of the service that imports Ray; nothing imports it.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from pydantic import Field, ValidationError, model_validator
from ray import serve

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.settings import PREFIX, Settings

if TYPE_CHECKING:  # only replicas load the service
    from fastapi import FastAPI

    from pneumo.serving.inference.service import Service

TARGET_ONGOING = 8
"""Requests under way for which a replica is planned: one batch in the network (`model.predictor.BATCH`)."""

MAX_ONGOING = 32
"""Most requests under way in a replica; its own load shedding refuses those that would wait too long."""

MAX_QUEUED = 100
"""Most requests that wait in a proxy while every replica is full; Ray answers 503 to others."""

UPSCALE_DELAY_S, DOWNSCALE_DELAY_S = 10, 300
"""Replicas stop later than they start: a start takes seconds, and traffic comes back."""

HEALTH_S = 5


class Scale(FrozenModel):
    """The bounds of the number of replicas, from `PNEUMO_RAY_MIN_REPLICAS` and `PNEUMO_RAY_MAX_REPLICAS`."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> "Scale":
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Scale":
        """Read the bounds from environment variables; raise an `InputError` if one is invalid."""
        prefix = f"{PREFIX}RAY_"
        bounds = {
            name: environment[variable]
            for name in cls.model_fields
            if environment.get(variable := prefix + name.upper())
        }
        try:
            return cls.model_validate(bounds)
        except ValidationError as error:
            raise InputError(f"{prefix}*: {first_problem(error)}") from None


class _Deployment(Protocol):
    def bind(self) -> serve.Application: ...


def app(args: dict[str, str]) -> serve.Application:
    """Build the application that Ray Serve runs; `args` are settings that override the environment.

    Raises:
        InputError: A setting is invalid.
    """
    settings = Settings.from_environment(os.environ, **args)
    settings = settings.model_copy(update={"workers": 1, "threads": settings.threads or 1})
    scale = Scale.from_environment()

    def build() -> "FastAPI":
        return _build(settings)

    deployment = serve.deployment(
        serve.ingress(build)(Replica),
        name="pneumo",
        ray_actor_options={"num_cpus": settings.threads},
        autoscaling_config={
            **scale.model_dump(),
            "target_ongoing_requests": TARGET_ONGOING,
            "upscale_delay_s": UPSCALE_DELAY_S,
            "downscale_delay_s": DOWNSCALE_DELAY_S,
        },
        max_ongoing_requests=MAX_ONGOING,
        max_queued_requests=MAX_QUEUED,
        graceful_shutdown_wait_loop_s=0.5,
        graceful_shutdown_timeout_s=2 * settings.timeout_s,
        health_check_period_s=HEALTH_S,
        health_check_timeout_s=2 * HEALTH_S,
        logging_config={"enable_access_log": False},  # it shows paths as clients send them
    )
    return cast(_Deployment, deployment).bind()


class Replica:
    """One process of the service; Ray sets `app` to the ASGI application."""

    app: "FastAPI"

    def check_health(self) -> None:
        """Raise a `RuntimeError` if the service failed, so that Ray starts another replica."""
        from pneumo.serving.inference.service import State

        service: Service = self.app.state.service
        if service.state is State.FAILED:
            raise RuntimeError(f"the service failed: {service.error}")


def _build(settings: Settings) -> "FastAPI":
    """Build the application of a replica, which starts only after its models are loaded."""
    from fastapi import FastAPI

    from pneumo.serving.http.app import create_app
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.registry import resolve
    from pneumo.serving.telemetry import logs

    logs.configure(settings.log_format)
    application = create_app(Bundle.open(resolve(settings.model, settings.models_dir)), settings)
    start = application.router.lifespan_context

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[Any]:
        async with start(app) as state:
            await application.state.service.wait_until_loaded()
            yield state

    application.router.lifespan_context = lifespan
    return application
