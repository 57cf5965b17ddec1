"""What was measured as flat JSON and CSV, for `dvc metrics`, `dvc plots` and spreadsheets."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pneumo.pipeline.evaluation.report.history import read_curves
from pneumo.pipeline.evaluation.report.points import read_cases, roc_points
from pneumo.pipeline.evaluation.results import read_metrics, values_by_split
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

METRICS = "metrics.json"
LEARNING = "learning.csv"
ROC = "roc.csv"
ANSWERS = "answers.csv"


def write_tables(run: Run, folder: Path, *, lead: str) -> list[Path]:
    """Write the tables of a run that was evaluated.

    Args:
        run: The run.
        folder: Where to: `metrics.json` (value of each metric by split), `learning.csv` (a row an epoch), `answers.csv`
            (true class and answer of each image), and with two classes `roc.csv`.
        lead: The split that answers and ROC curve are of.

    Returns:
        The files.

    Raises:
        InputError: The run was not evaluated.
    """
    metrics = read_metrics(run)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / METRICS, json.dumps(values_by_split(metrics.model_dump()), indent=2, allow_nan=False) + "\n")
    cases = read_cases(run, lead)
    names = metrics.classes
    answers = ((names[truth], names[answer]) for truth, answer in zip(cases.truth, cases.answer, strict=True))
    written = [folder / METRICS, _learning(run, folder), _csv(folder / ANSWERS, ("truth", "answer"), answers)]
    if cases.positive is not None:
        written.append(_csv(folder / ROC, ("false_positive_rate", "sensitivity"), roc_points(cases)))
    return written


def _learning(run: Run, folder: Path) -> Path:
    columns: dict[str, dict[float, float]] = {}
    over = "epoch"
    for curve in read_curves(run):
        over = curve.over.lower()
        for part, points in curve.series.items():
            columns[f"{part}_{curve.title.lower()}"] = dict(points)
    places = sorted({x for points in columns.values() for x in points})
    rows = ((f"{x:g}", *(points.get(x, "") for points in columns.values())) for x in places)
    return _csv(folder / LEARNING, (over, *columns), rows)


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path
