"""A server of one case browser for this machine, which makes heat maps on demand."""

import re
import threading
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pneumo.pipeline.cases.folder import write_heat
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.model.predictor import Predictor

HOST = "127.0.0.1"
_FILES = re.compile(r"/|/(?:data\.js|page\.(?:js|css)|sprites/\d{1,9}\.jpg|(?:images|(heat))/(\d{1,9})\.png)")


class CaseServer(ThreadingHTTPServer):
    """Serves the files of a folder to this machine alone; a page elsewhere can neither read nor show them."""

    daemon_threads = True

    def __init__(self, folder: Path, find_predictor: Callable[[int], Predictor], port: int) -> None:
        """Listen on a port, 0 for a free one; raise a `MachineError` if it is taken.

        `find_predictor` returns the network that predicted a case, by its number.
        """
        self.folder, self.find_predictor, self.lock = folder, find_predictor, threading.Lock()
        try:
            super().__init__((HOST, port), partial(_Handler, directory=str(folder)))
        except OSError as error:
            raise MachineError(f"--port {port}: {error.strerror}; choose another one, or 0 for a free one") from None
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}

    def make_heat(self, number: str) -> None:
        """Make the heat map of a case if there is none yet, one at a time, since each takes all cores."""
        image, heat = (self.folder / name / f"{number}.png" for name in ("images", "heat"))
        with self.lock:
            if image.is_file() and not heat.is_file():
                write_heat(self.folder, int(number), self.find_predictor(int(number)))


class _Handler(SimpleHTTPRequestHandler):
    server: CaseServer

    def send_head(self) -> Any:
        """Send status and headers; files other than those of the page do not exist."""
        match = _FILES.fullmatch(self.path)
        if self.headers.get("Host") not in self.server.hosts:  # another name that was pointed at this machine
            return self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
        if not match:
            return self.send_error(HTTPStatus.NOT_FOUND)
        if match[1]:
            self.server.make_heat(match[2])
        return super().send_head()

    def end_headers(self) -> None:
        """Add the headers that keep other pages out; the page has a policy of its own for all else."""
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Print nothing for a request."""
