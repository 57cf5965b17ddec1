"""The bundle that a word on the command line names."""

import json
from pathlib import Path

from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import RUNS, Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.model.bundle import INFO, Bundle
from pneumo.serving.model.registry import MODELS, find_version, resolve


def find_bundle(what: str, *, root: Root = MODELS, runs: Path = RUNS, reporter: Reporter = SILENT) -> Path:
    """Return the bundle of an alias, a version, a bundle folder or a run; a run without a current one is exported.

    As in `serving.model.registry.resolve`, a registered name has priority over a folder of that name, and a name with a
    slash, such as `./champion`, is always a path.

    Raises:
        InputError: There is no such model.
        MachineError: The registry lies in a bucket that cannot be read.
    """
    if find_version(what, root):
        return resolve(what, root)
    if (Path(what) / INFO).is_file():
        return Path(what)
    try:
        run = Run.open(what, root=runs)
    except InputError as error:
        others = f"nor is it a bundle folder, or an alias or version in {root}, which `pneumo models list` shows"
        raise InputError(f"{error}; {others}") from None
    if bundle := current_bundle(run):
        return bundle
    from pneumo.pipeline.export.bundle_export import export_run

    return export_run(run, reporter=reporter)


def current_bundle(run: Run) -> Path | None:
    """Return the bundle in a run's folder if it is whole and holds the run's present metrics; else None.

    Another evaluation, with another policy for example, changes thresholds and metrics; an older bundle has old ones.
    """
    folder = run.folder / "bundle"
    try:
        bundle = Bundle.open(folder)
        metrics = json.loads(run.metrics.read_bytes())
    except (InputError, OSError, ValueError, RecursionError):
        return None
    return folder if bundle.info.metrics == metrics else None
