import json
import shutil
from pathlib import Path
from typing import Any

from pneumo.pipeline import training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset
from pneumo.pipeline.evaluation import read_metrics
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Run, Status
from pneumo.pipeline.training.hooks import Hooks, track_run
from pneumo.pipeline.training.run import describe_run, execute_run
from tests.support.wandb_files import records, rounds_of, summary_of


def test_each_round_is_told_and_tracked_once_and_what_was_not_measured_can_be_later(
    tiny: Experiment, dataset: Dataset, tmp_path: Path
) -> None:
    run = Run.create("tiny", root=tmp_path)
    run.config.write_text(tiny.to_yaml(), encoding="utf-8")
    info = describe_run(run, tiny, dataset, seed=1, command=["pneumo"], commit=None)
    told: list[tuple[int, float]] = []

    class Rounds(Reporter):
        def round(self, entry: dict[str, Any], seconds: float) -> None:
            told.append((entry["epoch"], seconds))

    hooks = Hooks(reporter=Rounds(), measures=lambda: False, tracking="wandb:offline", group="some-sweep")
    execute_run(run, info, tiny, dataset, hooks)
    assert [epoch for epoch, _ in told] == [1, 2, 3]
    assert [seconds for _, seconds in told] == sorted(seconds for _, seconds in told)
    assert len(rounds_of(run.folder)) == 3
    assert next(record.run for record in records(run.folder) if record.HasField("run")).run_group == "some-sweep"
    assert run.info().status is Status.DONE
    assert not run.metrics.is_file()
    training.complete(run)
    assert read_metrics(run).splits["validation"].metrics["auroc"].value is not None


def test_a_run_that_was_measured_is_tracked_with_its_figures_and_curves(
    trained: Run, tiny: Experiment, tmp_path: Path
) -> None:
    run = Run(Path(shutil.copytree(trained.folder, tmp_path / trained.name)))

    with track_run(run, run.info(), tiny, Hooks(tracking="wandb:offline")):
        pass

    tables = {path.name.partition("_table")[0]: path for path in run.folder.glob("wandb/*/files/media/table/plots/*")}
    assert set(tables) == {"roc", "reliability"}
    roc = json.loads(tables["roc"].read_text())["data"]
    assert (roc[0], roc[-1]) == ([0, 0], [1, 1])
    assert summary_of(run.folder)["validation/auroc"] == read_metrics(run).splits["validation"].metrics["auroc"].value
