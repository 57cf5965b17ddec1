"""Time from a command to its first effect, as ratios in one run.

`pneumo --help` against the floor of any Typer program, and Ludwig loaded by pneumo against a plain import of it, in
turns, with Python's bytecode cached. `--modules` prints instead where the time of both goes, by package.
"""

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter

PYTHON = sys.executable
HELP = [PYTHON, "-m", "pneumo", "--help"]
FLOOR = [PYTHON, "-c", "import typer; app = typer.Typer(); app.command()(lambda: None); app()", "--help"]
OURS = [PYTHON, "-c", "from pneumo.pipeline.ludwig import runtime; runtime.load_ludwig()"]
PLAIN = [PYTHON, "-c", "import ludwig.api"]
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\w+)")


def measure(command: list[str]) -> tuple[float, float]:
    """Return wall and processor seconds of a command and the processes that it waits for."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(name: str, ours: list[str], theirs: list[str], repeats: int) -> None:
    """Print medians of both, run in turns so that a busy machine hits both alike."""
    for command in (ours, theirs):
        measure(command)
    pairs = [(measure(ours), measure(theirs)) for _ in range(repeats)]
    for index, kind in enumerate(("wall", "processor")):
        mine, other = (statistics.median(pair[side][index] for pair in pairs) for side in (0, 1))
        print(f"{name:<42}{kind:<11}{mine:>8.2f}{other:>9.2f}{mine / other:>7.2f}", flush=True)


def list_modules(command: list[str]) -> Counter[str]:
    """Return seconds spent in each package's own modules, as `-X importtime` has them."""
    done = subprocess.run([command[0], "-X", "importtime", *command[1:]], check=True, capture_output=True, text=True)
    seconds: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        if match := _IMPORT.match(line):
            seconds[match[2]] += int(match[1]) / 1e6  # type: ignore[assignment]
    return seconds


def print_modules(rows: int) -> None:
    """Print the packages that take longest in a plain import, and what they take here."""
    list_modules(PLAIN), list_modules(OURS)
    plain, ours = list_modules(PLAIN), list_modules(OURS)
    print(f"{'package':<24}{'pneumo, s':>10}{'plain, s':>10}")
    for package, seconds in [("all", sum(plain.values())), *plain.most_common(rows)]:
        mine = sum(ours.values()) if package == "all" else ours[package]
        print(f"{package:<24}{mine:>10.2f}{seconds:>10.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="turns of the loading of Ludwig")
    parser.add_argument("--modules", type=int, metavar="N", help="print the N packages that take longest")
    options = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    with tempfile.TemporaryDirectory(prefix="startup-") as cache:
        os.environ.setdefault("PYTHONPYCACHEPREFIX", cache)
        if options.modules:
            print_modules(options.modules)
            return
        print(f"{'what':<53}{'ours, s':>8}{'peer, s':>9}{'ratio':>7}")
        compare("pneumo --help / an empty Typer program", HELP, FLOOR, 9)
        compare("load_ludwig() / import ludwig.api", OURS, PLAIN, options.repeats)


if __name__ == "__main__":
    main()
