"""The service on a Ray cluster: `serve run pneumo.serving.ray_app:app [model=champion ...]`.

Settings come from `PNEUMO_*` where the command runs, and travel with the application; paths must lead to the same
files on every machine. `PNEUMO_RAY_MIN_REPLICAS` and `PNEUMO_RAY_MAX_REPLICAS` bound the number of replicas, each a
process with `PNEUMO_THREADS` cores (1 where it is not set). Replicas share nothing but the registry.

Ray's proxy listens on 127.0.0.1 by default, as the service does. Who lets it listen elsewhere sets `PNEUMO_HOST` to
that address, so that keys are asked for. Each replica counts for itself: `/metrics` through the proxy tells of one of
them, and `process_start_time_seconds` says which.

This is the only module of the service that knows Ray; nothing imports it.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError, model_validator
from ray import serve

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.settings import PREFIX, Settings

if TYPE_CHECKING:  # only replicas load the service
    from fastapi import FastAPI

    from pneumo.serving.inference.service import Service

TARGET_ONGOING = 8
"""Requests under way that a replica is for: a batch in the network (`model.predictor.BATCH`) or waiting for it."""

MAX_ONGOING = 32
"""Requests that a replica is given at once; it refuses by itself what would wait too long."""

MAX_QUEUED = 100
"""Requests that wait in each proxy where every replica has its share; Ray answers 503 beyond."""

UPSCALE_DELAY_S, DOWNSCALE_DELAY_S = 10, 300
"""Longer to go than to come: a replica takes seconds to start, and traffic comes back."""

HEALTH_S = 5


class Scale(FrozenModel):
    """How many replicas there are; each can be given as `PNEUMO_RAY_` and its name in capitals."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=4, ge=1)

    @model_validator(mode="after")
    def _agree(self) -> "Scale":
        if self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas must not be below min_replicas")
        return self

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Scale":
        """Read the bounds from the environment.

        Raises:
            InputError: They cannot be right.
        """
        prefix = f"{PREFIX}RAY_"
        given = {
            name: environment[variable]
            for name in cls.model_fields
            if environment.get(variable := prefix + name.upper())
        }
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise InputError(f"{prefix}*: {first_problem(error)}") from None


def app(args: dict[str, str]) -> serve.Application:
    """Make the application that Ray Serve runs.

    Args:
        args: Settings by name; they go before the environment.

    Raises:
        InputError: A setting that cannot be right.
    """
    given: dict[str, Any] = dict(args)
    settings = Settings.from_environment(**given)
    settings = settings.model_copy(update={"workers": 1, "threads": settings.threads or 1})
    scale = Scale.from_environment()

    def build() -> "FastAPI":
        return _build(settings)

    deployment: Any = serve.deployment(
        serve.ingress(build)(Replica),
        name="pneumo",
        ray_actor_options={"num_cpus": settings.threads},
        autoscaling_config={
            "min_replicas": scale.min_replicas,
            "max_replicas": scale.max_replicas,
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
    application: serve.Application = deployment.bind()
    return application


class Replica:
    """One process of the service; Ray puts the ASGI application under `app`."""

    app: Any

    def check_health(self) -> None:
        """Fail where the service did, so that Ray starts another replica.

        Raises:
            RuntimeError: It failed.
        """
        from pneumo.serving.inference.service import State

        service: Service = self.app.state.service
        if service.state is State.FAILED:
            raise RuntimeError(f"the service failed: {service.error}")


def _build(settings: Settings) -> "FastAPI":
    """The application in a replica, which counts as started once the models are loaded."""
    from fastapi import FastAPI

    from pneumo.serving.http.app import create_app
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.registry import resolve
    from pneumo.serving.telemetry import logs

    logs.configure(settings.log_format)
    application = create_app(Bundle.open(resolve(settings.model, settings.models_dir)), settings)
    started = application.router.lifespan_context

    @contextlib.asynccontextmanager
    async def loaded(app: FastAPI) -> AsyncIterator[Any]:
        async with started(app) as state:
            await application.state.service.ready()
            yield state

    application.router.lifespan_context = loaded
    return application
