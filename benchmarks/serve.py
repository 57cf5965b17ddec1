"""Compare the service with the bare limit, `ludwig serve`, LitServe and BentoML, as ratios in one run.

All answer for the same EfficientNet-Lite0, each on the first core, with the load generator on the last, and only who is
measured is awake. Contenders alternate in turns; figures are medians of turns. The bare limit is one process that
prepares files and runs the network, without HTTP. pneumo takes part twice: with the prediction log that it keeps by
default, and without, which is what the others do; what only pneumo is asked to do is measured with the log. Processor
time is the figure to trust where other work disturbs wall time.

`--peers-python` names a Python that has LitServe and BentoML:

    uv venv peers && uv pip install --python peers/bin/python litserve bentoml onnxruntime numpy pillow pydantic

Without it they are left out, and without `--run` so is `ludwig serve`.
"""

import argparse
import contextlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from service import bare, contenders, report, samples, trials
from service.trials import Plan

from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.settings import Settings


def chosen(options: argparse.Namespace, folder: Path) -> tuple[list[contenders.Contender], list[str]]:
    """Return the contenders, and the reason for each that is left out."""
    wanted, left_out = [contenders.pneumo(options.bundle, folder, log=log) for log in (False, True)], []
    if options.run:
        wanted.append(contenders.ludwig(options.run, options.bundle))
    else:
        left_out.append("ludwig serve (--run names no run)")
    for name, package in (("LitServe", "litserve"), ("BentoML", "bentoml")):
        python = options.peers_python
        if python is None:
            left_out.append(f"{name} (--peers-python names no Python that has it)")
        elif not contenders.has(python, package):
            left_out.append(f"{name} ({python} cannot import {package})")
        elif package == "litserve":
            wanted.append(contenders.litserve(python, options.bundle))
        else:
            wanted.append(contenders.bentoml(python, options.bundle, folder / "bentoml"))
    return wanted, left_out


def compare(options: argparse.Namespace, plan: Plan, folder: Path) -> dict[str, object]:
    """Measure all of it, print it, and return it as one document."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(available_cores()))
    server_core, own_core = {cores[0]}, {cores[-1]}
    folders, source = samples.write(folder)
    files = trials.Files(folders)
    wanted, left_out = chosen(options, folder)
    contenders.pin(own_core)
    differences: dict[str, float] = {}
    with contextlib.ExitStack() as stack:
        limit = stack.enter_context(bare.running(options.bundle, server_core))
        servers = []
        for contender in wanted:
            try:
                server = trials.started(stack, contender, server_core, files, folder)
            except RuntimeError as error:
                if contender in wanted[:2]:
                    raise SystemExit(str(error)) from None
                left_out.append(f"{contender.name} ({error})")
                continue
            servers.append(server)
            with server.awake():
                differences[contender.name] = max(
                    trials.difference(server, files.images[size], limit.probabilities(path))
                    for size, path in folders.items()
                )
        cells = trials.grid(servers, limit, files, plan)
        alone = trials.alone(servers[1], files, plan)
    ready = {"one core": trials.starts(wanted[1], server_core, plan.starts, folder)}
    if len(cores) > 1:
        ready["all cores"] = trials.starts(wanted[1], set(cores), plan.starts, folder)
    shared, memory = trials.on_all_cores(options.bundle, set(cores), files, plan, folder)
    aims = report.aims(cells, [each.name for each in wanted[:2]], alone, ready, Settings.from_environment().max_wait_s)

    print(f"\n{source}, JPEG, quality {samples.QUALITY}; {len(cores)} cores; load {os.getloadavg()[0]:.1f} at the end")
    for size in folders:
        print(f"\n{report.table(cells, size)}")
    print(f"\n{report.show_aims(aims)}\n\n{report.show_alone(alone)}")
    for name, value in differences.items():
        print(f"- {name}: probabilities differ from the bare limit's by {value:.1e} at most.")
    for reason in left_out:
        print(f"- Left out: {reason}.")
    print("\nServer and load generator on all cores:")
    for size in folders:
        print(f"\n{report.shared_table(shared, memory, size)}")
    return {
        "cells": [asdict(cell) | {"turns": [asdict(turn) for turn in turns]} for cell, turns in cells.items()],
        "all_cores": [asdict(cell) | {"turns": [asdict(turn) for turn in turns]} for cell, turns in shared.items()],
        "aims": [asdict(aim) | {"met": aim.met} for aim in aims],
        "alone": asdict(alone),
        "memory": memory,
        "differences": differences,
        "left_out": left_out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True, help="bundle of an EfficientNet-Lite0")
    parser.add_argument("--run", type=Path, help="the run that it was exported from, for `ludwig serve`")
    parser.add_argument("--peers-python", type=Path, help="a Python that has litserve and bentoml")
    parser.add_argument("--seconds", type=float, default=6, help="of each cell of the tables, over all turns")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--soak", type=float, default=60, metavar="SECONDS", help="at 100 clients")
    parser.add_argument("--overload", type=float, default=20, metavar="SECONDS")
    parser.add_argument("--quick", action="store_true", help="two to five minutes: one short turn of everything")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every turn's figures there")
    options = parser.parse_args()
    options.bundle = options.bundle.resolve()
    plan = Plan(options.seconds, options.turns, options.soak, options.overload, starts=3)
    if options.quick:
        plan = Plan(seconds=1.5, turns=1, soak_s=5, overload_s=8, starts=1)
    with tempfile.TemporaryDirectory(prefix="pneumo-serve-") as name:
        document = compare(options, plan, Path(name))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
