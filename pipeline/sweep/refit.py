"""Train a sweep's winner again on its training and validation images together.

More images make a better network, but leave none to fit decisions on: temperature, threshold and conformal limit stay
those of the winner, fitted while its validation images were unseen, as in AutoGluon's `refit_full`. Only the test
images measure the new run.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline import config, decisions
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.training_images import ludwig_frame, read_images
from pneumo.pipeline.runs import provenance
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.sweep.record import SweepFolder
from pneumo.pipeline.sweep.winner import best_run
from pneumo.pipeline.training.hooks import Hooks
from pneumo.pipeline.training.run import describe_run, execute_run
from pneumo.serving.images.preparation import Preparation

if TYPE_CHECKING:
    import pandas as pd


def refit(folder: SweepFolder, *, reporter: Reporter = SILENT) -> Run:
    """Train the winner's config with its seed on training and validation images; return the run, beside the others.

    All epochs are run, with the winner's schedule. The best epoch is chosen on images that were trained on, so it is
    one of the last. An interrupted refit starts again; a finished one is returned. Raises an `InputError` if the sweep
    has no winner, or its data set has changed since.
    """
    winner = best_run(folder)
    before = winner.info()
    dataset = folder.read_dataset()
    experiment = config.load_config(winner.config)
    run = folder.refit_run(winner.name)
    if run.is_done():
        return run
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir(parents=True)
    run.config.write_text(winner.config.read_text(encoding="utf-8"), encoding="utf-8")
    fitted = decisions.read_decisions(winner)
    decisions.save_decisions(run, fitted.model_copy(update={"fitted_on": f"{fitted.fitted_on} of {winner.name}"}))
    rows = [replace(row, split=Split.TRAIN) if row.split is Split.VALIDATION else row for row in dataset.rows]
    merged = replace(dataset, rows=tuple(rows))
    commit = provenance.read_git_commit(Path.cwd())
    info = describe_run(run, experiment, merged, seed=before.seed, command=before.command, commit=commit)
    info = info.model_copy(update={"refit_of": winner.name, "data": before.data})

    def frame() -> "pd.DataFrame":
        """Return all rows, with the validation images once for training and once for Ludwig's validation."""
        images = read_images(dataset, dataset.rows, Preparation.model_validate(info.preparation))
        again = [index for index, row in enumerate(dataset.rows) if row.split is Split.VALIDATION]
        shown = [*rows, *(dataset.rows[index] for index in again)]
        return ludwig_frame(shown, [*images, *(images[index] for index in again)], image=info.image, label=info.label)

    with run.locked():
        run.save(info)
        return execute_run(run, info, experiment, merged, Hooks(reporter=reporter, frame=frame))
