"""Metrics and curves as flat JSON and CSV, for `dvc metrics`, `dvc plots` and spreadsheets."""

import json
from pathlib import Path

from pneumo.pipeline.evaluation.report.history import read_curves
from pneumo.pipeline.evaluation.report.points import read_cases, roc_points
from pneumo.pipeline.evaluation.results import read_metrics, values_by_split
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.csv_text import format_csv
from pneumo.serving.contracts.files import write_text


def write_tables(run: Run, folder: Path, *, lead: str) -> list[Path]:
    """Write the tables of an evaluated run into a folder and return their paths.

    `metrics.json` holds the value of each metric by split, `learning.csv` one row per epoch. `answers.csv` holds ground
    truth and predicted class of each image of the split `lead`, and `roc.csv`, with two classes, its ROC curve.

    Raises:
        InputError: The run was not evaluated.
    """
    import pandas as pd

    metrics = read_metrics(run)
    cases = read_cases(run, lead)
    names = metrics.classes
    curves = read_curves(run)
    learning = pd.DataFrame(
        {
            f"{part}_{curve.title.lower()}": pd.Series(dict(points))
            for curve in curves
            for part, points in curve.series.items()
        }
    ).sort_index()
    learning.insert(0, curves[0].over.lower() if curves else "epoch", [f"{x:g}" for x in learning.index])
    tables = {
        "learning.csv": learning,
        "answers.csv": pd.DataFrame(
            {"truth": [names[k] for k in cases.truth], "answer": [names[k] for k in cases.answer]}
        ),
    }
    if cases.positive is not None:
        tables["roc.csv"] = pd.DataFrame(roc_points(cases), columns=["false_positive_rate", "sensitivity"])
    folder.mkdir(parents=True, exist_ok=True)
    values = json.dumps(values_by_split(metrics.model_dump()), indent=2, allow_nan=False)
    write_text(folder / "metrics.json", values + "\n")
    for name, table in tables.items():
        write_text(folder / name, format_csv([table.columns, *table.itertuples(index=False, name=None)]))
    return [folder / name for name in ("metrics.json", *tables)]
