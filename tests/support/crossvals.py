"""A finished cross-validation without a training: predictions of each fold are drawn from a known distribution."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from pneumo.pipeline.crossval.pooling import describe_run, pool_folds
from pneumo.pipeline.crossval.record import Crossval, CrossvalFolder
from pneumo.pipeline.data.folds import apply_fold
from pneumo.pipeline.data.manifest import read_dataset
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.ludwig.inference import make_predictions_frame
from pneumo.pipeline.runs.run import Run, Status
from tests.pipeline.conftest import build_run


def build_crossval(folder: Path, *, images: int = 180, folds: int = 3, repeats: int = 2) -> CrossvalFolder:
    """Build a cross-validation on a data set of its own, whose networks differ in how sure they are."""
    base = build_run(folder / "base", images=images)
    info = base.info()
    dataset = read_dataset(Path(info.data))
    crossval = CrossvalFolder.create("synthetic", root=folder / "crossvals", now=datetime(2026, 1, 2, 4, tzinfo=UTC))
    record = Crossval(
        name=crossval.name,
        command=[],
        config=info.config,
        data=info.data,
        data_fingerprint=info.data_fingerprint,
        positive=info.positive,
        folds=folds,
        repeats=repeats,
        seed=5,
        git_commit=None,
        started=info.started,
        status=Status.DONE,
        bootstrap=Bootstrap(resamples=20),
    )
    crossval.save(record)
    random = np.random.default_rng(0)
    for fold in record.list_folds():
        run = Run.create("synthetic", root=crossval.runs)
        for name in (base.config.name, base.history.name):
            shutil.copy(base.folder / name, run.folder / name)
        run.save(info.model_copy(update={"name": run.name, "fold": fold}))
        rows = apply_fold(dataset, fold).rows
        sure = [fold.number if row.label == info.positive else -fold.number for row in rows]
        logits = np.stack([np.zeros(len(rows)), random.normal(sure, 2)], axis=1).astype(np.float32)
        make_predictions_frame(rows, logits).to_parquet(run.predictions)
        evaluate_run(run, resamples=20)
        record.runs.append(describe_run(run, fold))
    pool_folds(crossval, record)
    crossval.save(record)
    return crossval
