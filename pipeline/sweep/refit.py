"""Train a sweep's winner again on training and validation images together.

More images make a better network, and leave none to decide on: temperature, threshold and conformal limit are those of
the winner, fitted while its validation images were unseen, as AutoGluon's `refit_full` keeps them. What the new run is
worth, only its test images tell.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline import config, decisions
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.data.training_images import ludwig_frame, read_images
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.run import Run, Status
from pneumo.pipeline.sweep.record import SweepFolder
from pneumo.pipeline.sweep.winner import best_run
from pneumo.pipeline.training.hooks import Hooks
from pneumo.pipeline.training.run import carry_out, describe
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    import pandas as pd


def refit(folder: SweepFolder, *, say: Callable[[str], None] | None = None) -> Run:
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
    dataset = manifest.read(Path(before.data))
    if dataset.info.fingerprint != before.data_fingerprint:
        raise InputError(f"{before.data}: changed since {folder.name} began; sweep anew")
    experiment = config.load(winner.config)
    run = refit_run(folder, winner.name)
    if is_done(run):
        return run
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    run.config.write_text(winner.config.read_text(encoding="utf-8"), encoding="utf-8")
    decided = decisions.read(winner)
    decisions.save(run, decided.model_copy(update={"fitted_on": f"validation of {winner.name}"}))
    seen = _all_seen(dataset)
    info = describe(
        run,
        experiment,
        seen,
        seed=before.seed,
        command=before.command,
        commit=provenance.git_commit(Path.cwd()),
    ).model_copy(update={"refit_of": winner.name, "data": before.data})

    def frame() -> "pd.DataFrame":
        preparation = Preparation.model_validate(info.preparation)
        images = read_images(dataset, dataset.rows, preparation)
        shown = [place for place, row in enumerate(dataset.rows) if row.split is Split.VALIDATION]
        rows: list[Row] = [*seen.rows, *(dataset.rows[place] for place in shown)]
        return ludwig_frame(rows, [*images, *(images[place] for place in shown)], image=info.image, label=info.label)

    with run.locked():
        run.save(info)
        return carry_out(run, info, experiment, seen, Hooks(say=say, frame=frame))


def refit_run(folder: SweepFolder, winner: str) -> Run:
    """Where the refit of a winner is, or will be."""
    return Run(folder.runs / f"{winner}-refit")


def is_done(run: Run) -> bool:
    """Whether a refit is there and was carried out to its end."""
    return (run.folder / "run.json").is_file() and run.info().status is Status.DONE


def _all_seen(dataset: Dataset) -> Dataset:
    """The data set with its validation images among the training images."""
    rows = tuple(replace(row, split=Split.TRAIN) if row.split is Split.VALIDATION else row for row in dataset.rows)
    return replace(dataset, rows=rows)
