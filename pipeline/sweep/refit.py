"""Train a sweep's winner again on training and validation images together.

More images make a better network, and leave none to decide on: temperature, threshold and conformal limit are those of
the winner, fitted while its validation images were unseen, as AutoGluon's `refit_full` keeps them. What the new run is
worth, only its test images tell.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline import config, decisions
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.data.training_images import ludwig_frame, read_images
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.sweep.record import SweepFolder
from pneumo.pipeline.sweep.winner import best_run
from pneumo.pipeline.training.hooks import Hooks
from pneumo.pipeline.training.run import describe_run, execute_run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    import pandas as pd


def refit(folder: SweepFolder, *, reporter: Reporter = SILENT) -> Run:
    """Train the winner's config and seed on training and validation images.

    Every epoch is run, with the winner's schedule; the best of them is told by images that were trained on, so that it
    is one of the last.

    A refit that was interrupted is begun anew; one that is done is returned.

    Returns:
        The new run, beside the sweep's others, with `refit_of` in its `run.json`.

    Raises:
        InputError: The sweep has no winner, or its data set has changed since.
    """
    winner = best_run(folder)
    before = winner.info()
    dataset = manifest.read_dataset(Path(before.data))
    if dataset.info.fingerprint != before.data_fingerprint:
        raise InputError(f"{before.data}: changed since {folder.name} began; sweep anew")
    experiment = config.load_config(winner.config)
    run = folder.refit_run(winner.name)
    if run.is_done():
        return run
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    run.config.write_text(winner.config.read_text(encoding="utf-8"), encoding="utf-8")
    decided = decisions.read_decisions(winner)
    decisions.save_decisions(run, decided.model_copy(update={"fitted_on": f"validation of {winner.name}"}))
    seen = _all_seen(dataset)
    info = describe_run(
        run,
        experiment,
        seen,
        seed=before.seed,
        command=before.command,
        commit=provenance.read_git_commit(Path.cwd()),
    ).model_copy(update={"refit_of": winner.name, "data": before.data})

    def frame() -> "pd.DataFrame":
        preparation = Preparation.model_validate(info.preparation)
        images = read_images(dataset, dataset.rows, preparation)
        shown = [place for place, row in enumerate(dataset.rows) if row.split is Split.VALIDATION]
        rows: list[Row] = [*seen.rows, *(dataset.rows[place] for place in shown)]
        return ludwig_frame(rows, [*images, *(images[place] for place in shown)], image=info.image, label=info.label)

    with run.locked():
        run.save(info)
        return execute_run(run, info, experiment, seen, Hooks(reporter=reporter, frame=frame))


def _all_seen(dataset: Dataset) -> Dataset:
    """The data set with its validation images among the training images."""
    rows = tuple(replace(row, split=Split.TRAIN) if row.split is Split.VALIDATION else row for row in dataset.rows)
    return replace(dataset, rows=rows)
