"""The npm package yaml-language-server, which editors run: installed into a cache, and spoken to over its pipes."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

PACKAGE = "yaml-language-server@2.0.0"
SETTINGS = {"validate": True, "completion": True, "hover": True, "schemaStore": {"enable": False}}


def install() -> list[str]:
    """Return the command of the server; skip the test where Node or npm is missing, or npm cannot fetch it."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pneumo-tests" / PACKAGE
    script = cache / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"
    if not script.is_file():
        cache.mkdir(parents=True, exist_ok=True)
        command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(cache), PACKAGE]
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr.strip()[-300:]}")
    return [node, str(script), "--stdio"]


class Editor:
    """An editor with one file open at a time."""

    def __init__(self, stdin: IO[bytes], stdout: IO[bytes]) -> None:
        self._stdin, self._stdout, self._count = stdin, stdout, 0
        self._ask("initialize", {"processId": None, "rootUri": None, "capabilities": {}})
        self._tell("initialized", {})
        self._tell("workspace/didChangeConfiguration", {"settings": {"yaml": SETTINGS}})

    def open(self, path: Path, text: str) -> list[dict[str, Any]]:
        """Open a file with a text, whatever lies there; return the marks that appear."""
        self._count += 1
        uri = path.as_uri()
        document = {"uri": uri, "languageId": "yaml", "version": self._count, "text": text}
        self._tell("textDocument/didClose", {"textDocument": {"uri": uri}})
        self._tell("textDocument/didOpen", {"textDocument": document})

        def is_marks(message: dict[str, Any]) -> bool:
            params = message.get("params", {})
            named = message.get("method") == "textDocument/publishDiagnostics" and params["uri"] == uri
            return named and params.get("version", self._count) == self._count

        self._ask("textDocument/documentSymbol", {"textDocument": {"uri": uri}})  # the text has arrived
        marks: list[dict[str, Any]] = self._wait(is_marks)["params"]["diagnostics"]
        return marks

    def complete(self, path: Path, line: int, character: int) -> list[str]:
        """Return the labels that are offered at a place."""
        found = self._ask("textDocument/completion", self._place(path, line, character))
        return [item["label"] for item in found["items"]]

    def hover(self, path: Path, line: int, character: int) -> str:
        """Return the text that is shown over a place."""
        found = self._ask("textDocument/hover", self._place(path, line, character))
        return found["contents"]["value"] if found else ""

    @staticmethod
    def _place(path: Path, line: int, character: int) -> dict[str, Any]:
        return {"textDocument": {"uri": path.as_uri()}, "position": {"line": line, "character": character}}

    def _tell(self, method: str, params: dict[str, Any], **more: Any) -> None:
        body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()
        self._stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._stdin.flush()

    def _ask(self, method: str, params: dict[str, Any]) -> Any:
        self._count += 1
        number = self._count
        self._tell(method, params, id=number)
        return self._wait(lambda message: message.get("id") == number and "method" not in message).get("result")

    def _wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        while True:
            length = 0
            while line := self._stdout.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert length, "the language server ended"
            message: dict[str, Any] = json.loads(self._stdout.read(length))
            if wanted(message):
                return message


@contextmanager
def open_editor() -> Iterator[Editor]:
    """An editor over a running server."""
    with subprocess.Popen(install(), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        try:
            yield Editor(server.stdin, server.stdout)
        finally:
            server.kill()
