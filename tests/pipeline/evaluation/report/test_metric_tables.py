import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline.evaluation import evaluate_run, read_metrics
from pneumo.pipeline.evaluation.report.metric_tables import write_tables
from pneumo.pipeline.runs.run import Run

pytestmark = pytest.mark.usefixtures("no_pages")

SynthesiseRun = Callable[..., Run]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_tables_hold_what_the_run_measured(synthesise_run: SynthesiseRun, tmp_path: Path) -> None:
    run = synthesise_run()
    evaluate_run(run, resamples=20)

    files = write_tables(run, tmp_path / "tables", lead="test")

    measured = read_metrics(run).splits
    values = json.loads((tmp_path / "tables" / "metrics.json").read_text())
    assert values["test"]["auroc"] == measured["test"].metrics["auroc"].value
    assert set(values) == {"train", "validation", "test"}
    answers = read(tmp_path / "tables" / "answers.csv")
    assert len(answers) == measured["test"].images
    right = sum(row["truth"] == row["answer"] for row in answers) / len(answers)
    assert right == pytest.approx(values["test"]["accuracy"])
    curve = read(tmp_path / "tables" / "roc.csv")
    sensitivity, false_positive_rate = (
        np.array([float(row[name]) for row in curve]) for name in ("sensitivity", "false_positive_rate")
    )
    area = np.trapezoid(sensitivity, false_positive_rate)
    assert area == pytest.approx(values["test"]["auroc"])
    learning = read(tmp_path / "tables" / "learning.csv")
    assert learning[0] == {"epoch": "1", "training_loss": "1.0", "validation_loss": "1.2"}
    assert [row["epoch"] for row in learning] == ["1", "2", "3"]
    assert len(files) == 4


def test_three_classes_have_no_roc_curve(synthesise_run: SynthesiseRun, tmp_path: Path) -> None:
    run = synthesise_run(("A", "B", "C"))
    evaluate_run(run, resamples=20)

    names = {path.name for path in write_tables(run, tmp_path, lead="validation")}

    assert names == {"metrics.json", "learning.csv", "answers.csv"}
    truths = pd.read_csv(tmp_path / "answers.csv")["truth"]
    assert set(truths) <= {"A", "B", "C"}


def test_the_command_writes_tables_of_the_own_data_set_only(
    synthesise_run: SynthesiseRun, tmp_path: Path, pneumo: Callable[..., Any]
) -> None:
    run = synthesise_run()

    assert pneumo("evaluate", run.folder, "--tables", tmp_path / "tables").code == 0
    assert (tmp_path / "tables" / "roc.csv").is_file()

    refused = pneumo("evaluate", run.folder, "--tables", tmp_path / "other", "--data", tmp_path)
    assert refused.code == 2
    assert "--tables holds results of the run's own data set; leave out --tables" in refused.err
    refused = pneumo("evaluate", run.folder, "--tables", tmp_path / "other", "--stress")
    assert refused.code == 2
    assert "--stress uses the run's own validation images and threshold; leave out --tables" in refused.err
