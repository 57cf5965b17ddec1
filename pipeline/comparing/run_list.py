"""List of runs: status, metrics and settings, the runs that a filter leaves, and their order."""

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt, ne
from pathlib import Path

import yaml

from pneumo.pipeline.evaluation.results import TITLES, read_values
from pneumo.pipeline.runs.history import flatten_metrics, read_last_round
from pneumo.pipeline.runs.run import RUNS, Run, RunInfo, Status
from pneumo.pipeline.runs.settings import flatten_settings
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.models import FrozenModel

_CONFIG = "config."
"""Beginning of the column of a setting, such as `config.trainer.epochs`."""
_STATUSES = (*Status, "damaged")
_OPERATORS = {"=": eq, "==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
_FILTER = re.compile(r"(?P<column>[^=<>!]+?)\s*(?:(?P<operator>[<>!]=|==?|[<>])\s*(?P<wanted>.*))?")


class RunSummary(FrozenModel):
    """A run in a list; None for values that are unknown.

    The status is `interrupted` if the run is recorded as running and its process is gone, `damaged` if `run.json`
    cannot be read; `error` says why. `seconds` is the duration, until now for a run that is running. `metrics` by full
    name are the measured ones, and those of the last round that are not measured; `settings` are values of the config.
    """

    name: str
    status: str
    config: str | None = None
    started: datetime | None = None
    seconds: float | None = None
    seed: int | None = None
    git_commit: str | None = None
    data_fingerprint: str | None = None
    metrics: dict[str, float] = {}
    settings: dict[str, object] = {}
    error: str | None = None

    def value(self, column: str) -> object:
        """Return the value in a column: a field, a metric such as `test/auroc`, or `config.` and a setting."""
        if column in _FIELDS:
            found: object = getattr(self, column)
            return found
        return (
            self.settings.get(column.removeprefix(_CONFIG)) if column.startswith(_CONFIG) else self.metrics.get(column)
        )


_FIELDS = [name for name in RunSummary.model_fields if name not in ("metrics", "settings")]


def summarise_runs(root: Path = RUNS, *, settings: bool = False, now: datetime | None = None) -> list[RunSummary]:
    """Summarise every run in a folder, newest first; with `settings`, read their configs too."""
    folders = {path.parent for name in (Run.RECORD, "config.yaml") for path in root.glob(f"*/{name}")}
    moment = now or datetime.now(UTC)
    return [_summarise(Run(folder), settings, moment) for folder in sorted(folders, reverse=True)]


@dataclass(frozen=True)
class Query:
    """Columns, filters and order of a list.

    Attributes:
        filters: Conditions that all must hold: `status=done`, `test/auroc>0.9`, or a column that must have a value.
        sort: Columns to sort by, the first one first; one with `-` before it in descending order.
    """

    columns: Sequence[str] = ()
    filters: Sequence[str] = ()
    sort: Sequence[str] = ()

    @property
    def needs_settings(self) -> bool:
        """True if a column is a setting."""
        return any(text.lstrip("-").startswith(_CONFIG) for text in (*self.columns, *self.filters, *self.sort))

    def select(self, runs: Iterable[RunSummary]) -> list[RunSummary]:
        """Return the runs that meet all filters, in order; runs without a value to sort by are last.

        Raises:
            InputError: No run has such a column, or a filter makes no sense.
        """
        if not (runs := list(runs)):
            return []
        known = {*_FIELDS, *(f"{split}/{name}" for split in ("train", "validation", "test") for name in TITLES)}
        known.update(name for run in runs for name in run.metrics)
        known.update(f"{_CONFIG}{name}" for run in runs for name in run.settings)
        for text in self.filters:
            runs = [run for run in runs if _matches(run, text, known)]
        for column in self.columns:
            _check(column, known)
        for text in reversed(self.sort):
            column = text.removeprefix("-")
            _check(column, known)
            with_value = [run for run in runs if run.value(column) is not None]
            without = [run for run in runs if run.value(column) is None]
            runs = sorted(with_value, key=lambda run: _rank(run.value(column)), reverse=text != column) + without
        return runs


def list_changed_settings(runs: Iterable[RunSummary]) -> list[str]:
    """Return the columns of the settings that are not the same in all runs with a readable config."""
    read = [run.settings for run in runs if run.settings]
    names = dict.fromkeys(name for settings in read for name in settings)
    absent = object()
    return [
        f"{_CONFIG}{name}"
        for name in names
        if any(each.get(name, absent) != read[0].get(name, absent) for each in read)
    ]


def find_best_run(runs: Iterable[Run]) -> Run:
    """Return the finished run with the highest validation AUROC, of those on the newest run's data (newer first).

    Raises an `InputError` if no run was evaluated.
    """
    finished = [(run, info) for run in runs if (info := _read_finished(run))]
    if not finished:
        raise InputError("best: no run is finished yet; `pneumo train CONFIG` or `pneumo sweep CONFIG` makes one")
    newest = max(finished, key=lambda each: each[1].started)[1].data_fingerprint
    ranked = [
        (auroc, info.started, run.name, run)
        for run, info in finished
        if info.data_fingerprint == newest and (auroc := _read_metrics(run)[0].get("validation/auroc")) is not None
    ]
    if not ranked:
        raise InputError("best: no finished run has a validation AUROC; `pneumo evaluate RUN` measures one")
    return max(ranked, key=lambda each: each[:3])[3]


def current_status(run: Run, info: RunInfo) -> Status:
    """Return the status of a run: interrupted if no process holds one that is recorded as running (kill -9)."""
    return Status.INTERRUPTED if info.status is Status.RUNNING and not run.is_locked() else info.status


def _read_finished(run: Run) -> RunInfo | None:
    try:
        info = run.info()
    except InputError:
        return None
    return info if info.status is Status.DONE else None


def _read_metrics(run: Run) -> tuple[dict[str, float], str | None]:
    """Return the measured metrics by full name, and what is wrong with their file."""
    try:
        return flatten_metrics(read_values(run)), None
    except InputError as error:
        return {}, str(error)


def _read_settings(run: Run) -> tuple[dict[str, object], str | None]:
    try:
        return flatten_settings(yaml.load(run.config.read_bytes(), Loader=yaml.CSafeLoader)), None
    except (OSError, ValueError, RecursionError, yaml.YAMLError, InputError):
        return {}, f"{run.config}: cannot be read"


def _summarise(run: Run, settings: bool, now: datetime) -> RunSummary:
    try:
        info = run.info()
    except InputError as error:
        return RunSummary(name=run.name, status="damaged", error=str(error))
    status, (measured, problem) = current_status(run, info), _read_metrics(run)
    chosen, unreadable = _read_settings(run) if settings else ({}, None)
    seconds: float | None = info.durations.get("total", sum(info.durations.values()))
    if status is Status.RUNNING:
        seconds = (now - info.started).total_seconds()
    return RunSummary(
        name=run.name,
        status=status.value,
        seconds=seconds or None,
        metrics={name: value for name, value in read_last_round(run).items() if name != "time"} | measured,
        settings=chosen,
        error=info.error or problem or unreadable,
        **info.model_dump(include={"config", "started", "seed", "git_commit", "data_fingerprint"}),
    )


def _check(column: str, known: set[str]) -> None:
    if column not in known:
        near = difflib.get_close_matches(column, known, 1)
        raise InputError(
            f"{column}: no run has such a column; "
            + (f"did you mean {near[0]}?" if near else f"try {', '.join(_FIELDS)}")
        )


def _matches(run: RunSummary, text: str, known: set[str]) -> bool:
    parts = _FILTER.fullmatch(text.strip())
    if parts is None:
        raise InputError(f"--filter {text}: write COLUMN, COLUMN=VALUE, or with != < <= > >= between")
    column, operator, wanted = parts["column"], parts["operator"], parts["wanted"]
    _check(column, known)
    if column == "status" and operator:
        wanted = "done" if wanted == "finished" else wanted
        if wanted not in _STATUSES:
            raise InputError(f"--filter {text}: a status is one of {', '.join(_STATUSES)}")
    value = run.value(column)
    if value is None or operator is None:
        return operator == "!=" or value is not None
    low, high = _rank(value), _rank(_as_number(wanted))
    if low[0] != high[0] and operator not in ("=", "==", "!="):
        raise InputError(f"--filter {text}: {column} of {run.name} is {value}, which has no order with {wanted!r}")
    return bool(_OPERATORS[operator](low, high))


def _rank(value: object) -> tuple[bool, float, str]:
    """Return a key that sorts numbers by value, before texts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return False, value, ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return True, 0.0, value.isoformat() if isinstance(value, datetime) else text


def _as_number(text: str) -> float | str:
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
