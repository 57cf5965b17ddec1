"""Run the service in this process: until it is told to stop, and then until everything is answered."""

import asyncio
import multiprocessing
import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn
from fastapi import FastAPI

from pneumo.serving.access.security import open_keys
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.inference.service import Service, State
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import resolve

GRACE_S = 10
"""Seconds that requests under way get once no new ones are taken."""


def serve(settings: Settings, announce: Callable[[Bundle, str], object]) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        settings: What to serve, and where.
        announce: Called with the bundle and the service's address once it takes requests.

    Raises:
        InputError: No such model, a bundle that is not what was sealed, or an address that cannot be listened on.
        BundleError: The bundle does not run.
        MachineError: Workers end before they are ready.
    """
    bundle = Bundle.open(resolve(settings.model, settings.models_dir))
    open_keys(settings)  # refused here once, not in every worker
    listener = _listen(settings)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    try:
        if settings.workers == 1:
            run(settings, bundle, listener, lambda: announce(bundle, address))
        else:
            from pneumo.serving.process.workers import run_workers

            run_workers(run, settings, bundle.folder, listener, lambda: announce(bundle, address))
    finally:
        listener.close()


def run(settings: Settings, bundle: Bundle, listener: socket.socket, ready: Callable[[], object]) -> None:
    """Serve a bundle on a socket that is bound already.

    Args:
        settings: How to serve.
        bundle: The champion to begin with.
        listener: Bound, not yet listening.
        ready: Called once requests are taken.

    Raises:
        PneumoError: The models cannot be loaded.
    """
    app = create_app(bundle, settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,  # it shows paths as clients send them; the service writes its own lines
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = _Server(config, app, ready)
    server.run(sockets=[listener])
    if server.failure:
        raise server.failure


class _Server(uvicorn.Server):
    """Stops in two steps: first it says on every answer that the connection ends, then it takes no more."""

    def __init__(self, config: uvicorn.Config, app: FastAPI, ready: Callable[[], object]) -> None:
        super().__init__(config)
        self.failure: Exception | None = None
        self._service: Service = app.state.service
        self._ready = ready
        self._tasks: set[object] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._tasks.add(asyncio.create_task(self._announce()))

    async def _announce(self) -> None:
        try:
            await self._service.ready()
        except Exception as error:
            self.failure, self.should_exit = error, True
        else:
            if not self.should_exit:
                self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and multiprocessing.parent_process():  # Ctrl-C goes to the workers' parent too
            return
        if self._service.state is State.DRAINING:  # told twice: at once
            self.should_exit = True
            return
        self._service.state = State.DRAINING
        if sig == signal.SIGINT and not self.server_state.connections:  # a person at a terminal
            self.should_exit = True
            return
        self._tasks.add(asyncio.get_running_loop().call_later(self._service.settings.drain_s, self._stop))

    def _stop(self) -> None:
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise InputError(
            f"--host {settings.host} --port {settings.port}: cannot listen there ({error.strerror}); "
            "choose others, or --port 0 for a free one"
        ) from None
    return listener
