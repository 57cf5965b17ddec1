"""Time from a command to its first effect, as ratios in one run.

`pneumo --help` against the floor of any Typer program, and Ludwig loaded by pneumo against a plain import of it.
"""

import statistics
import subprocess
import sys
import time

PYTHON = sys.executable
HELP = [PYTHON, "-m", "pneumo", "--help"]
FLOOR = [PYTHON, "-c", "import typer; app = typer.Typer(); app.command()(lambda: None); app()", "--help"]
OURS = [PYTHON, "-c", "from pneumo.pipeline.ludwig import runtime; runtime.load_ludwig()"]
PLAIN = [PYTHON, "-c", "import ludwig.api"]


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def compare(ours: list[str], theirs: list[str], repeats: int) -> tuple[float, float]:
    """Medians of both, run in turns so that a busy machine hits both alike."""
    for command in (ours, theirs):
        seconds(command)
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(repeats)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def main() -> None:
    print(f"{'what':<40}{'ours, s':>10}{'peer, s':>10}{'ratio':>8}")
    for name, ours, theirs, repeats in (
        ("pneumo --help / an empty Typer program", HELP, FLOOR, 9),
        ("engine.load() / import ludwig.api", OURS, PLAIN, 3),
    ):
        mine, other = compare(ours, theirs, repeats)
        print(f"{name:<40}{mine:>10.2f}{other:>10.2f}{mine / other:>8.2f}")


if __name__ == "__main__":
    main()
