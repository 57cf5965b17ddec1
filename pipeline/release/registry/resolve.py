"""The bundle that a word on the command line means."""

import json
from pathlib import Path

from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import RUNS, Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.model.bundle import INFO, Bundle
from pneumo.serving.model.registry import MODELS, find_version, resolve

BUNDLE = "bundle"
"""Folder of the bundle inside a run."""


def find_bundle(what: str, *, root: Root = MODELS, runs: Path = RUNS, reporter: Reporter = SILENT) -> Path:
    """The bundle that an alias, a version, a bundle folder or a run means; a run is exported if need be.

    A registered name goes before a folder of that name, as in `serving.model.registry.resolve`; with a slash in it, as
    in `./champion`, it is always a path.

    Args:
        what: What is given on the command line.
        root: The registry.
        runs: Folder of the runs.
        reporter: Receives progress.

    Raises:
        InputError: Nothing is meant by it.
        MachineError: The registry lies in a bucket that cannot be read.
    """
    if find_version(what, root):
        return resolve(what, root)
    if (Path(what) / INFO).is_file():
        return Path(what)
    run = Run.open(what, root=runs)
    bundle = current_bundle(run)
    if bundle is not None:
        return bundle
    from pneumo.pipeline.export.bundle_export import export_run

    return export_run(run, reporter=reporter)


def current_bundle(run: Run) -> Path | None:
    """The bundle in a run's folder, if it is whole and was made from the metrics that the run has now.

    Evaluating again, as with another policy, moves thresholds and metrics, and a bundle from before has the old ones.
    """
    folder = run.folder / BUNDLE
    try:
        bundle = Bundle.open(folder)
        metrics = json.loads(run.metrics.read_bytes())
    except (InputError, OSError, ValueError):
        return None
    return folder if bundle.info.metrics == metrics else None
