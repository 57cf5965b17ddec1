"""The evaluation rounds of a training in `history.json`, and the one name of each metric.

A metric is called `SPLIT/NAME`, such as `validation/auroc`, wherever a person sees it. Configs take Ludwig's names.
"""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.files import write_text

Entry = dict[str, Any]
"""A round: `epoch`, `step`, `time` in seconds since 1970, `learning_rate`, and the values of each split by name."""

LUDWIG_NAMES = {
    "binary": {"roc_auc": "auroc", "recall": "sensitivity", "precision": "ppv"},
    "category": {"roc_auc": "auroc", "accuracy": "balanced_accuracy", "accuracy_micro": "accuracy"},
}
"""Names that differ from Ludwig's, by type of label. Its `accuracy` of categories is the mean over classes."""


def name_metric(ludwig: str, label_type: str = "binary") -> str:
    """Return the name of one of Ludwig's metrics, without its split; other names stay as they are."""
    return LUDWIG_NAMES.get(label_type, {}).get(ludwig, ludwig)


def find_label_type(ludwig: Collection[str]) -> str:
    """Return the type of label, `binary` or `category`, that has these metrics of Ludwig."""
    return "category" if "accuracy_micro" in ludwig else "binary"


def name_metrics(values: Mapping[str, float]) -> dict[str, float]:
    """Rename the metrics of one split from Ludwig's names; names that were changed already stay as they are."""
    label_type = find_label_type(values)
    return {name_metric(name, label_type): value for name, value in values.items()}


def flatten_metrics(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of a round, or of splits, by full name: `train/loss`, `learning_rate`."""
    flat: dict[str, float] = {}
    for name, value in entry.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{inner}": each for inner, each in flatten_metrics(value).items()}
        elif isinstance(value, int | float) and math.isfinite(value):
            flat[name] = value
    return flat


def read_history(run: Run) -> list[Entry]:
    """Return the rounds of a run, oldest first, without values that are no finite numbers; none if there is no file.

    Rounds that older versions wrote have Ludwig's names, which are replaced. What cannot be read is left out.
    """
    return [_normalise(entry) for entry in _read_rounds(run)]


def read_last_round(run: Run) -> dict[str, float]:
    """Return the values of a run's last round by full name; none before the first."""
    return {name: value for each in _read_rounds(run)[-1:] for name, value in flatten_metrics(_normalise(each)).items()}


def _read_rounds(run: Run) -> list[Entry]:
    try:
        rounds = json.loads(run.history.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [
        each
        for each in (rounds if isinstance(rounds, list) else [])
        if isinstance(each, dict) and isinstance(each.get("step"), int)
    ]


def _normalise(entry: Entry) -> Entry:
    splits = ((split, entry.get(split)) for split in ("train", "validation"))
    return entry | {
        split: name_metrics(flatten_metrics(values)) if isinstance(values, dict) else {} for split, values in splits
    }


def write_history(run: Run, rounds: Sequence[Entry]) -> None:
    """Write the rounds of a run atomically."""
    write_text(run.history, json.dumps(rounds, indent=1, allow_nan=False) + "\n")
