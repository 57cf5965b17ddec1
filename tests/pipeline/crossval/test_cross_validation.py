"""Cross-validations that are trained, interrupted, killed, resumed and joined."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.crossval.cross_validation import Plan, create_crossval, train_folds
from pneumo.pipeline.crossval.record import CrossvalFolder
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.runs.run import Run, Status
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import open_session
from tests.conftest import TINY, Outcome
from tests.support.paths import CONFIGS
from tests.support.reporters import StopAt
from tests.support.waiting import until

pytestmark = pytest.mark.slow

PLAN = Plan(folds=3, seed=5)


def started(folder: CrossvalFolder) -> dict[str, tuple[object, int]]:
    """When each finished fold began, and when its weights were written."""
    runs = [run for run in Run.list_folders(folder.runs) if run.is_done()]
    weights = [next(run.model.glob("model_weights*")) for run in runs]
    return {run.name: (run.info().started, path.stat().st_mtime_ns) for run, path in zip(runs, weights, strict=True)}


@pytest.fixture(scope="module")
def finished(tiny: Experiment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> CrossvalFolder:
    """Three folds; Ctrl-C came in the second epoch of the second."""
    folder = create_crossval(tiny, dataset, PLAN, root=tmp_path_factory.mktemp("crossvals"), command=["pneumo"])

    class StopInSecondFold(StopAt):
        folds = 0

        def message(self, text: str) -> None:
            self.folds += text.startswith("fold ")
            self.stop = 10 if self.folds == 2 else 0

    with pytest.raises(KeyboardInterrupt):
        train_folds(folder, reporter=StopInSecondFold(0))
    assert folder.read().status is Status.INTERRUPTED
    before = started(folder)
    assert len(before) == 1
    train_folds(folder)
    assert started(folder).items() > before.items()  # what was done was not trained again
    return folder


def test_a_finished_cross_validation_predicts_every_image_outside_the_test_split_once(
    finished: CrossvalFolder, dataset: Dataset
) -> None:
    frame, record = pd.read_parquet(finished.predictions), finished.read()
    assert sorted(frame["image"]) == sorted(row.image for row in dataset.rows if row.split is not Split.TEST)
    assert set(frame["fold"]) == {1, 2, 3}
    assert set(frame["repeat"]) == {1}
    assert record.status is Status.DONE
    assert len(record.runs) == 3
    assert record.pooled is not None
    auroc = record.pooled.metrics["auroc"]
    assert auroc.low is not None
    assert auroc.high is not None
    assert auroc.low < auroc.high
    assert record.spread["auroc"].low == min(run.metrics["auroc"] for run in record.runs)
    for entry in record.runs:
        run = Run(finished.folder / entry.run)
        seen = read_run_dataset(run.info())
        own = frame[frame["fold"] == entry.fold]
        assert {row.image for row in seen.select(Split.TEST)} == set(own["image"])
        assert not {row.patient for row in seen.rows if row.split is not Split.TEST} & set(own["patient"])
        predicted = pd.read_parquet(run.predictions).set_index("image")["logits"]
        assert (np.stack(list(predicted[own["image"]])) == np.stack(list(own["logits"]))).all()


def test_an_interruption_changes_no_other_fold(
    finished: CrossvalFolder, tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    whole = create_crossval(tiny, dataset, PLAN, root=tmp_path)
    train_folds(whole)
    frames = (pd.read_parquet(folder.predictions) for folder in (finished, whole))
    one, other = (frame[frame["fold"] != 2] for frame in frames)  # the second was interrupted
    assert list(one["image"]) == list(other["image"])
    assert np.stack(list(one["logits"])) == pytest.approx(np.stack(list(other["logits"])), abs=1e-5)
    with pytest.raises(InputError, match="already done"):
        train_folds(whole)


@pytest.mark.lengthy
def test_a_killed_cross_validation_goes_on_from_its_finished_folds(
    dataset: Dataset, tmp_path: Path, pneumo: Callable[..., Outcome]
) -> None:
    overrides = [word for override in (*TINY, "trainer.epochs=20") for word in ("-o", override)]
    arguments = ["crossval", CONFIGS / "smoke.yaml", "--data", dataset.folder.resolve(), "--folds", "2", *overrides]
    program = [sys.executable, "-m", "pneumo", *map(str, arguments)]
    with subprocess.Popen(program, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: len(list(tmp_path.glob("crossvals/*/runs/*/history.json"))) == 2, timeout=1200)
        os.kill(process.pid, signal.SIGKILL)
    folder = CrossvalFolder.open("latest", root=tmp_path / "crossvals")
    before = started(folder)
    assert len(before) == 1
    outcome = pneumo("crossval", "--resume", "latest", "--crossvals-dir", tmp_path / "crossvals", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["status"] == "done"
    assert started(folder).items() > before.items()
    assert len(started(folder)) == 2


def test_the_bundle_of_the_folds_gives_the_mean_of_their_logits(
    finished: CrossvalFolder, dataset: Dataset, pneumo: Callable[..., Outcome]
) -> None:
    outcome = pneumo("crossval", "--resume", finished.folder, "--ensemble", "--json")
    assert outcome.code == 0, outcome.err
    bundle = Bundle.open(Path(json.loads(outcome.out)["bundle"]))
    run = Run(bundle.folder.parent)
    frame, held_out = (pd.read_parquet(folder.predictions) for folder in (run, finished))
    images = np.random.default_rng(0).random((4, 1, 32, 32), dtype=np.float32)
    joined = open_session((bundle.folder / "model.onnx").read_bytes(), 1).run(["logits"], {"image": images})[0]
    assert bundle.info.parity.max_probability_difference < 1e-4
    assert joined.shape == (4, 2)
    own = frame[frame["split"] == "validation"].set_index("image")["logits"]
    assert np.stack(list(own[held_out["image"]])) == pytest.approx(np.stack(list(held_out["logits"])), abs=1e-6)
    assert set(frame[frame["split"] == "test"]["image"]) == {row.image for row in dataset.select(Split.TEST)}
    assert bundle.info.metrics["decisions"]["fitted_on"] == "cross-validation"
    assert bundle.info.metrics["decisions"]["images"] == len(held_out)
    reference = pd.read_parquet(bundle.folder / "reference.parquet")
    assert len(reference) == len(held_out)


def test_the_case_browser_exports_each_fold_and_shows_its_images(
    finished: CrossvalFolder, dataset: Dataset, tmp_path: Path, pneumo: Callable[..., Outcome]
) -> None:
    outcome = pneumo("cases", finished.folder, "--out", tmp_path / "cases")
    assert outcome.code == 0, outcome.err
    bundles = [Bundle.open(run.folder / "bundle").info for run in finished.list_runs().values()]
    assert len({info.version for info in bundles}) == 3
    assert len([*(tmp_path / "cases" / "images").iterdir()]) == len(pd.read_parquet(finished.predictions))


def test_an_ensemble_whose_decisions_need_changed_images_is_refused_before_training(
    dataset: Dataset, tmp_path: Path, pneumo: Callable[..., Outcome]
) -> None:
    outcome = pneumo(
        *("crossval", CONFIGS / "smoke.yaml", "--data", dataset.folder, "--crossvals-dir", tmp_path / "crossvals"),
        *("--ensemble", "-o", "decisions.fit_on=shifts"),
    )
    assert outcome.code == 2
    assert "decisions.fit_on" in outcome.err
    assert not (tmp_path / "crossvals").exists()
