"""Messages of `pneumo train`; the training itself is tested in tests/pipeline/training."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pneumo.pipeline.cli.progress import TrainingProgress
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.evaluation.results import list_doubts, read_metrics
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pneumo.pipeline.data.manifest import Dataset
    from pneumo.pipeline.runs.run import Run
    from tests.conftest import Outcome

CONFIG = ROOT / "ludwig_configs" / "smoke.yaml"


def test_an_interrupted_training_says_how_to_go_on_and_exits_with_130(
    pneumo: Callable[..., "Outcome"], dataset: "Dataset", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pneumo.pipeline.training.run.fit", stop)

    outcome = pneumo("train", CONFIG, "--data", dataset.folder, "--runs-dir", tmp_path)

    (run,) = tmp_path.iterdir()
    assert outcome.code == 130
    assert f"continue with: pneumo train --resume {run}" in outcome.err


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_all_errors_are_shown_before_a_folder_is_made(
    pneumo: Callable[..., "Outcome"], dataset: "Dataset", tmp_path: Path, command: str
) -> None:
    text = CONFIG.read_text(encoding="utf-8").replace("  epochs: 25", "  epochs:25").replace("adamw", "adam_w")
    text += "hyperopt:\n  metric: auroc\n  parameters: {trainer.epochs: {space: choice}}\n"
    mine, folder = tmp_path / "mine.yaml", tmp_path / "made"
    loss = "loss: {type: softmax_cross_entropy, class_weights: {NORMAL: 1.0, PNEUMONIE: 2.0}}"
    mine.write_text(text.replace("binary\n", f"category\n    {loss}\n"), encoding="utf-8")

    outcome = pneumo(command, mine, "--data", dataset.folder, f"--{command}s-dir".replace("train", "run"), folder)

    assert outcome.code == 2
    assert not folder.exists()
    lines = [line.removeprefix(f"pneumo: {mine}:") for line in outcome.err.strip().splitlines()]
    assert [line.partition(":")[0] for line in lines] == ["18", "19", "23", "28", "30", "31", "32"]
    assert "class_weights.PNEUMONIE is no class of the data set; did you mean 'PNEUMONIA'?" in lines[0]


def test_each_epoch_is_a_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str], ludwig: object) -> None:
    from pneumo.pipeline.runs.reporter import Step

    with TrainingProgress() as progress:
        for step in range(1, 5):
            epoch = step // 2
            progress.step(Step(step, 4, epoch, (step - 1) // 2, "validation/auroc", None if step < 3 else 0.75))
            if step % 2 == 0:
                progress.step(Step(step, 4, epoch, epoch, "validation/auroc", 0.75))

    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "epoch 1, step 2 of 4, validation/auroc 0.750",
        "epoch 2, step 4 of 4, validation/auroc 0.750",
    ]


@pytest.mark.parametrize(("shift", "words"), [(0.0, "no better than chance"), (2.0, None)])
def test_a_model_no_better_than_chance_is_doubted(
    synthesise_run: Callable[..., "Run"], shift: float, words: str | None
) -> None:
    run = synthesise_run(shift=shift, images=200)
    evaluate_run(run, resamples=100)

    found = list_doubts(read_metrics(run))

    assert bool(found) is bool(words)
    assert all(words in doubt for doubt in found if words)
