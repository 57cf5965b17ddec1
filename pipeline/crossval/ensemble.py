"""One model of all folds: a run that joins their networks, whose decisions are fitted on out-of-fold predictions.

No image outside the test split is left out of training, and none is judged by a network that saw it. The decisions are
those of single networks, applied to their mean: the test split, which no network saw, tells how well they hold.
"""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.crossval.record import CrossvalFolder
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.training_images import read_images
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.evaluation.run_dataset import read_training_data
from pneumo.pipeline.export.bundle_export import export_run
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.ludwig.inference import make_predictions_frame, predict_members
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run, Status
from pneumo.serving.images.preparation import Preparation


def check_decisions(experiment: Experiment) -> None:
    """Raise a `ConfigError` if decisions are fitted to something else than predictions of unchanged images."""
    if experiment.decisions.fit_on != "validation":
        problem = f"is {experiment.decisions.fit_on}; an ensemble of folds needs validation, or leave out --ensemble"
        experiment.document.reject(("decisions", "fit_on"), problem)


def export_ensemble(folder: CrossvalFolder, *, reporter: Reporter = SILENT) -> Path:
    """Make one run and one bundle of a finished cross-validation; return the bundle's folder.

    The run's validation predictions are those out of fold, of each image the mean over repeats; those of its test split
    are the means over all networks.

    Raises:
        InputError: The data set or a fold's run is gone or has changed.
        CheckFailedError: ONNX Runtime and Ludwig disagree.
    """
    run = Run(folder.runs / f"{folder.name}-ensemble")
    with folder.locked():
        if not run.is_done():
            _join_runs(folder, run, reporter)
        return export_run(run, reporter=reporter)


def _join_runs(folder: CrossvalFolder, run: Run, reporter: Reporter) -> None:
    record, runs = folder.read(), list(folder.list_runs().values())
    dataset = read_training_data(record.name, record.data, record.data_fingerprint)
    shutil.rmtree(run.folder, ignore_errors=True)
    run.folder.mkdir()
    shutil.copyfile(folder.config, run.config)
    update = {"name": run.name, "classes": record.classes, "members": [member.name for member in runs], "durations": {}}
    info = runs[0].info().model_copy(update=update | {"started": datetime.now(UTC), "status": Status.RUNNING})
    run.save(info)
    held_out = (
        pd.read_parquet(folder.predictions).groupby("image")["logits"].apply(lambda some: np.mean([*some], axis=0))
    )
    seen = [replace(row, split=Split.VALIDATION) for row in dataset.rows if row.split is not Split.TEST]
    logits = np.stack([held_out[row.image] for row in seen]).astype(np.float32)
    test = dataset.select(Split.TEST)
    if test:
        reporter.message(f"predicting {len(test)} test images with {len(runs)} networks ...")
        images = read_images(dataset, test, Preparation.model_validate(info.preparation))
        runtime.load_ludwig(reporter)
        with runtime.log_to_file(run.log):
            logits = np.concatenate([logits, predict_members(run, images)])
    make_predictions_frame([*seen, *test], logits).to_parquet(run.predictions, index=False)
    evaluate_run(run)
    run.save(info.model_copy(update={"status": Status.DONE}))
