"""A server that receives webhooks, and drift checks to report."""

import contextlib
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

from pneumo.serving.drift.verdict import DriftCheck, Verdict

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


SECRET = "T000-very-secret"


def check(**changes: object) -> DriftCheck:
    known: dict[str, object] = {
        "time": NOW,
        "model": "tiny",
        "version": "1",
        "window": "the last 500 images",
        "first": NOW,
        "last": NOW,
        "images": 500,
        "reference_images": 600,
        "verdict": Verdict.DRIFT,
        "top": ["mean"],
        "summary": "images are darker than the reference: exposure, or a new detector?",
        "columns": [],
    }
    return DriftCheck.model_validate(known | changes)


@contextlib.contextmanager
def server(*statuses: int, headers: dict[str, str] | None = None):
    """A server that answers with these one after the other; yields its address and the documents that came."""
    came: list[dict] = []
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            came.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            assert self.headers["Content-Type"] == "application/json"
            self.send_response(left.pop(0))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(SECRET.encode())

        def do_GET(self):
            came.append({"redirected": True})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    httpd = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/services/{SECRET}", came
    finally:
        httpd.shutdown()
        thread.join()
        httpd.server_close()
