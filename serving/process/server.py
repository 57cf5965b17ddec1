"""One server process, with graceful shutdown."""

import asyncio
import contextlib
import ctypes
import gc
import math
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType
from typing import override

import uvicorn

from pneumo.serving.access.authentication import open_keys
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings
from pneumo.serving.http.app import create_app
from pneumo.serving.inference.service import Service, State
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.registry import resolve
from pneumo.serving.process.connections import Connections

GRACE_S = 10
"""Seconds for requests under way, after `drain_s`."""

_POLL_S = 0.02

_LAST_S = 0.2
"""Seconds in which the last connections are taken while the system accepts no further ones."""


def serve(settings: Settings, announce: Callable[[Bundle, str], object]) -> None:
    """Serve until SIGINT or SIGTERM, then shut down gracefully.

    As soon as the service is ready, `announce` is called with the bundle and the service's address.

    Raises:
        InputError: There is no such model, its checksums do not match, or the address is not available.
        BundleError: The bundle cannot be run.
        MachineError: A worker ended before it was ready.
    """
    bundle = Bundle.open(resolve(settings.model, settings.models_dir))
    open_keys(settings)  # fails here once, not in every worker
    listener = bind(settings)
    address = tell_address(listener, settings.host)
    try:
        if settings.workers == 1:
            run(settings, bundle, listener, lambda: announce(bundle, address))
        else:
            from pneumo.serving.process.workers import run_workers

            run_workers(run, settings, bundle.folder, listener, lambda: announce(bundle, address))
    finally:
        listener.close()


def run(settings: Settings, bundle: Bundle, listener: socket.socket, on_ready: Callable[[], object]) -> None:
    """Serve a bundle on a bound socket, and call `on_ready` when ready; raise a `PneumoError` if loading fails."""
    server = build_server(settings, bundle, on_ready)
    server.run(sockets=[listener])
    if server.failure:
        raise server.failure


def build_server(settings: Settings, bundle: Bundle, on_ready: Callable[[], object]) -> "Server":
    """Build the server that `run` runs."""
    app = create_app(bundle, settings)
    service: Service = app.state.service
    refused = service.metrics.refused_connections
    connections = Connections(settings, lambda reason: refused.series(reason).inc())
    config = uvicorn.Config(
        app,
        http=connections,  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,  # it shows paths as clients send them; the service writes its own lines
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=GRACE_S,
    )
    return Server(config, service, connections, on_ready)


class Server(uvicorn.Server):
    """Shuts down in two steps: from the signal on answers end their connections; once all are given, no new are taken.

    A load balancer may open connections for some time after the signal. They are answered, not reset.
    """

    def __init__(
        self, config: uvicorn.Config, service: Service, connections: Connections, on_ready: Callable[[], object]
    ) -> None:
        """Be ready to run; as soon as the models are loaded, `on_ready` is called."""
        super().__init__(config)
        self.failure: Exception | None = None
        self._service = service
        self._connections = connections
        self._on_ready = on_ready
        self._task: asyncio.Task[None] | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._task = asyncio.create_task(self._announce())

    async def _announce(self) -> None:
        try:
            await self._service.wait_until_loaded()
        except Exception as error:
            self.failure, self.should_exit = error, True
        else:
            if not self.should_exit:
                self._on_ready()
                _settle_memory()

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig == signal.SIGINT and multiprocessing.parent_process():  # the parent gets Ctrl-C too, and stops workers
            return
        draining = self._service.state is State.DRAINING
        self._service.state = State.DRAINING
        # At once on the second signal, and on Ctrl-C in a terminal if nobody is connected.
        if draining or (sig == signal.SIGINT and not self.server_state.connections):
            self.should_exit = True
        else:
            asyncio.get_running_loop().call_later(self._service.settings.drain_s, setattr, self, "should_exit", True)

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        ends = time.monotonic() + GRACE_S
        while self._is_at_work(ends):
            _listen(sockets, self.config.backlog)  # again, since another worker may be done
            await asyncio.sleep(_POLL_S)
        _listen(sockets, 0)  # a socket that is closed resets the connections that the system accepted for it
        await asyncio.sleep(_LAST_S)
        while self._is_at_work(ends):
            await asyncio.sleep(_POLL_S)
        self.config.timeout_graceful_shutdown = max(1, math.ceil(ends - time.monotonic()))
        last = [self._attach(connection) for each in sockets or () for connection in _accept_waiting(each)]
        await super().shutdown(sockets)  # closes the port at once, then waits for connections
        await asyncio.gather(*last, return_exceptions=True)

    def _attach(self, connection: socket.socket) -> asyncio.Task[object]:
        """Serve a connection that was accepted here, as uvicorn does in `startup`."""
        loop, state = asyncio.get_running_loop(), self.server_state
        options = {"config": self.config, "server_state": state, "app_state": self.lifespan.state}
        return loop.create_task(
            loop.connect_accepted_socket(lambda: self._connections(**options, _loop=loop), connection)
        )

    def _is_at_work(self, ends: float) -> bool:
        return self._connections.unanswered and time.monotonic() < ends


def _settle_memory() -> None:
    """Give back what loading took and freed, 20 MiB with glibc, and keep the rest out of garbage collections."""
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _listen(sockets: list[socket.socket] | None, backlog: int) -> None:
    for each in sockets or ():
        each.listen(backlog)


def _accept_waiting(listener: socket.socket) -> list[socket.socket]:
    """Accept the connections that wait at a socket; closing it would reset them."""
    accepted = []
    with listener.dup() as own, contextlib.suppress(OSError):
        own.setblocking(False)
        while True:
            accepted.append(own.accept()[0])
    return accepted


def bind(settings: Settings) -> socket.socket:
    """Return a socket that is bound to the settings' host and port; raise `InputError` if it cannot be."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET)
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


def tell_address(listener: socket.socket, host: str) -> str:
    """Return an address of a listener that a client can open; `0.0.0.0` and `::` stand for all addresses."""
    place, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(place, host)  # noqa: S104
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
