"""Run the service in this process."""

import signal
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from serving.app import create_app
from serving.bundle import Bundle
from serving.errors import InputError
from serving.models import resolve
from serving.settings import Settings

GRACE_S = 10
"""Seconds that requests under way get when the service is told to stop."""


def serve(settings: Settings, announce: Callable[[Bundle, str], None]) -> None:
    """Serve until SIGINT or SIGTERM; requests under way are answered first.

    Args:
        settings: What to serve, and where.
        announce: Called with the bundle and the service's address once it takes requests.

    Raises:
        InputError: No such model, a bundle that is not what was sealed, or an address that cannot be listened on.
    """
    bundle = Bundle.open(resolve(settings.model, settings.models_dir))
    app = create_app(bundle, settings)
    listener = _listen(settings)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    # The access log of uvicorn shows paths as clients send them; the service writes its own lines.
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S)
    server = _Server(config, lambda: announce(bundle, address))

    def stop(_signal: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn raises the signal again after it has shut down; with these handlers that ends in a normal return.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[listener])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        listener.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.should_exit:
            self._announce()


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
