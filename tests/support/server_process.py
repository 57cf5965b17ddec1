"""The service in a process of its own, as `pneumo serve` runs it."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

_SCRIPT = """
import os, sys
from pneumo.serving.telemetry import logs
from pneumo.serving.process import server
from pneumo.serving.contracts.settings import Settings

server.GRACE_S = float(os.environ.pop("GRACE_S", server.GRACE_S))
if __name__ == "__main__":
    logs.configure("text")
    settings = Settings.from_environment(model=sys.argv[1], port=0, threads=1)
    server.serve(settings, lambda bundle, address: print(address, flush=True))
"""


class ServerProcess:
    """A running service; its settings are given without `PNEUMO_`, in small letters.

    With `grace_s` requests under way get so many seconds at the end.
    """

    def __init__(self, script: Path, model: Path, grace_s: float | None = None, **settings: object) -> None:
        script.write_text(_SCRIPT)
        given = {f"PNEUMO_{name.upper()}": str(value) for name, value in settings.items()}
        given |= {} if grace_s is None else {"GRACE_S": str(grace_s)}
        self.process = subprocess.Popen(
            [sys.executable, str(script), str(model)],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.address = self.process.stdout.readline().strip()
        assert self.address.startswith("http"), self.process.stderr.read()

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def workers(self) -> set[int]:
        """Processes that serve, without the one that tracks resources."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                if parent == self.process.pid and b"spawn_main" in stat.with_name("cmdline").read_bytes():
                    found.add(int(stat.parent.name))
        return found

    def memory(self) -> int:
        """Bytes of memory of the process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def stop(self) -> str:
        """End the process, and return what it wrote to standard error."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.communicate(timeout=60)[1]
