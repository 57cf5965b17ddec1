import json
from pathlib import Path

import pytest

from pneumo.pipeline.config.schema import read_ludwig_schema
from pneumo.pipeline.evaluation.results import TITLES
from pneumo.pipeline.runs.history import LUDWIG_NAMES, read_history, read_last_round, write_history
from pneumo.pipeline.runs.run import Run


def test_names_of_metrics_are_those_of_an_evaluation() -> None:
    ludwig = read_ludwig_schema()["metrics"]
    for label_type, names in LUDWIG_NAMES.items():
        assert set(names) <= set(ludwig[label_type])
        assert set(names.values()) <= set(TITLES)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"loss": 1, "roc_auc": 0.9, "recall": 0.8}, {"loss": 1, "auroc": 0.9, "sensitivity": 0.8}),
        ({"accuracy": 0.5, "accuracy_micro": 0.7}, {"balanced_accuracy": 0.5, "accuracy": 0.7}),
        ({"accuracy": 0.5, "loss": None}, {"accuracy": 0.5}),
        ("nothing", {}),
    ],
)
def test_rounds_of_older_runs_get_the_names_of_today_once(tmp_path: Path, old: object, new: object) -> None:
    run = Run(tmp_path)
    run.history.write_text(json.dumps([{"epoch": 1, "step": 5, "validation": old}, {"epoch": 2}, 7]))
    rounds = read_history(run)
    assert rounds == [{"epoch": 1, "step": 5, "train": {}, "validation": new}]
    write_history(run, rounds)
    assert read_history(run) == rounds


def test_the_last_round_has_full_names(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert read_last_round(run) == {}
    write_history(run, [{"step": 1, "train": {"loss": 2.0}}, {"step": 2, "train": {"loss": 1.0}, "learning_rate": 0.1}])
    assert read_last_round(run) == {"step": 2, "train/loss": 1.0, "learning_rate": 0.1}
