"""Evaluate a run: fit decisions on validation, measure every split, write metrics and report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline import decisions as deciding
from pneumo.pipeline.config import document
from pneumo.pipeline.config.experiment import read_decision_rules
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import GROUP, Dataset, Split
from pneumo.pipeline.decisions import DecisionRules, Decisions, Policy
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import SPLITS, Cases, Scores, positive_column, read_predictions, to_scores
from pneumo.pipeline.evaluation.results import (
    Bootstrap,
    EvaluationReport,
    Metrics,
    SplitResult,
    display_rank,
    list_remarks,
)
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.evaluation.subgroups import measure_subgroups
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class _Source:
    """A data set, which may be gone, and the predictions for it."""

    folder: Path
    fingerprint: str
    scores: Scores

    def choose_split(self, split: Split | None) -> str:
        """Return the split to lead with: the given one, or the first of test, validation and train with images."""
        names = [name for name in reversed(SPLITS) if name in self.scores.split]
        if not names:
            raise InputError(f"{self.folder}: no images to evaluate")
        name = names[0] if split is None else split.name.lower()
        if name not in names:
            raise InputError(f"--split {name}: {self.folder} has no such images; it has {', '.join(names)}")
        return name


def evaluate(run: Run, *, split: Split = Split.TEST, resamples: int = 1000) -> EvaluationReport:
    """Measure one split of a finished run without writing anything; raise the `InputError`s of `evaluate_run`."""
    info = run.info()
    source = _read_own(run, info)
    name = source.choose_split(split)
    decisions = _read_or_fit_decisions(run, info)
    return _report(_measure(info, source, [name], decisions, Bootstrap(resamples=resamples)), name)


def evaluate_run(
    run: Run, *, split: Split | None = None, policy: str | None = None, resamples: int = 1000
) -> EvaluationReport:
    """Fit decisions on validation, measure all splits, write `decisions.json`, `metrics.json` and `report.html`.

    The split that leads is by default test, or else validation or train. Without a policy the previous rule applies, or
    else that of the config. Patients are resampled.

    Raises:
        InputError: The run has no predictions, they do not fit it, the split is empty, or the policy is not a rule.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    info = run.info()
    source = _read_own(run, info)
    lead = source.choose_split(split)
    decisions = _fit_decisions(run, info, source.scores, policy)
    metrics = _measure(info, source, SPLITS, decisions, Bootstrap(resamples=resamples))
    deciding.save_decisions(run, decisions)
    _write(run, source, metrics, lead, (run.metrics, run.report))
    return _report(metrics, lead, run.metrics, run.folder / deciding.FILE, run.report)


def evaluate_data(
    run: Run,
    dataset: Dataset,
    frame: "pd.DataFrame",
    *,
    split: Split | None = None,
    policy: str | None = None,
    resamples: int = 1000,
) -> EvaluationReport:
    """Measure a run on another data set, with the decisions of its own validation split.

    Writes `evaluation-<8 hex digits of the data set's fingerprint>.json` and `.html` into the run folder, nothing else.
    Arguments are those of `evaluate_run`; without a policy, the run's own decisions are used.

    Raises:
        InputError: The predictions do not fit the run, or the split is empty.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    info = run.info()
    scores = to_scores(frame, info.classes, place=str(dataset.folder))
    source = _Source(dataset.folder, dataset.info.fingerprint, scores)
    lead = source.choose_split(split)
    decisions = (
        _fit_decisions(run, info, _read_own(run, info).scores, policy) if policy else _read_or_fit_decisions(run, info)
    )
    metrics = _measure(info, source, SPLITS, decisions, Bootstrap(resamples=resamples))
    stem = f"evaluation-{source.fingerprint[:8]}"
    files = run.folder / f"{stem}.json", run.folder / f"{stem}.html"
    _write(run, source, metrics, lead, files)
    return _report(metrics, lead, *files)


def evaluate_folder(
    run: Run, folder: Path, *, split: Split | None = None, policy: str | None = None
) -> EvaluationReport:
    """Predict a data set folder with a run's model and measure it, with arguments and errors of `evaluate_data`."""
    dataset = manifest.read_dataset(folder)
    classes = run.info().classes
    unknown = sorted(set(dataset.info.classes) - set(classes))
    if unknown:
        raise InputError(f"--data {folder}: class {unknown[0]!r} is unknown to the run, which has {', '.join(classes)}")
    if split is not None and not dataset.select(split):  # before predicting, which takes minutes
        others = ", ".join(part.name.lower() for part in Split if dataset.select(part))
        raise InputError(f"--split {split.name.lower()}: {folder} has no such images; it has {others}")
    from pneumo.pipeline.ludwig.inference import predict_dataset

    return evaluate_data(run, dataset, predict_dataset(run, dataset), split=split, policy=policy)


def _read_own(run: Run, info: RunInfo) -> _Source:
    """Read a run's predictions for its own data set."""
    frame = read_predictions(run)
    if not any(str(name).startswith(GROUP) for name in frame.columns):
        frame = _add_groups(frame, info)
    scores = to_scores(frame, info.classes, place=str(run.predictions))
    return _Source(Path(info.data), info.data_fingerprint, scores)


def _add_groups(frame: "pd.DataFrame", info: RunInfo) -> "pd.DataFrame":
    """Add the manifest's groups to predictions that are older than them, if the data set has not changed."""
    try:
        dataset = read_run_dataset(info)
    except InputError:
        return frame
    if "image" not in frame.columns:
        return frame
    groups = {row.image: row.groups for row in dataset.rows}
    return frame.assign(
        **{
            GROUP + name: [groups.get(image, {}).get(name, "") for image in frame["image"]]
            for name in manifest.group_names(dataset.rows)
        }
    )


def _fit_decisions(run: Run, info: RunInfo, scores: Scores, policy: str | None) -> Decisions:
    """Fit decisions on validation with the given rule, or the previous one, or that of the config."""
    positive = positive_column(info.classes, info.positive)
    if policy and positive is None:
        raise InputError(
            f"--policy {policy!r}: {info.name} has {len(info.classes)} classes and no threshold; leave it out"
        )
    if info.refit_of:
        if policy:
            raise InputError(
                f"--policy {policy!r}: {info.name} was trained on its validation images and keeps the decisions of "
                f"{info.refit_of}; evaluate that one with the policy, and refit again"
            )
        return deciding.read_decisions(run)
    rules = _read_rules(run)
    if policy:
        rules = replace(rules, policy=Policy.parse(policy))
    validation = scores.select("validation")
    return deciding.fit_decisions(validation.logits, validation.truth, positive=positive, rules=rules)


def _read_rules(run: Run) -> DecisionRules:
    path = run.folder / deciding.FILE
    if path.is_file():
        before = deciding.read_decisions(run)
        policy = Policy.parse(before.policy, place=f"{path}: policy")
        return DecisionRules(policy, before.conformal_level, before.outlier_quantile)
    return read_decision_rules(document.read_document(run.config)) if run.config.is_file() else DecisionRules()


def _read_or_fit_decisions(run: Run, info: RunInfo) -> Decisions:
    if (run.folder / deciding.FILE).is_file():
        return deciding.read_decisions(run)
    return _fit_decisions(run, info, _read_own(run, info).scores, None)


def _measure(
    info: RunInfo, source: _Source, splits: Sequence[str], decisions: Decisions, settings: Bootstrap
) -> Metrics:
    """Measure the splits that hold images."""
    positive = positive_column(info.classes, info.positive)
    results = {}
    for name in splits:
        if name not in source.scores.split:
            continue
        cases = Cases.make(source.scores.select(name), decisions, positive)
        metrics, confusion = estimate_metrics(cases, info.classes, settings)
        # Subgroups of images that the weights were trained on would say nothing.
        trained_on = name == "train" and source.fingerprint == info.data_fingerprint
        subgroups, worst = ([], None) if trained_on else measure_subgroups(cases, info.classes, settings)
        if worst:
            metrics["worst_group_auroc"] = worst.auroc
        results[name] = SplitResult(
            images=len(cases),
            patients=cases.patients,
            counts=cases.count_classes(info.classes),
            metrics={metric: metrics[metric] for metric in sorted(metrics, key=display_rank)},
            confusion=confusion,
            subgroups=subgroups,
            worst_group=worst.name if worst else None,
        )
    return Metrics(
        run=info.name,
        data=source.folder.name or str(source.folder),
        data_fingerprint=source.fingerprint,
        classes=info.classes,
        positive=info.positive,
        decisions=decisions,
        bootstrap=settings,
        splits=results,
    )


def _write(run: Run, source: _Source, metrics: Metrics, lead: str, files: tuple[Path, Path]) -> None:
    """Write metrics as JSON to the first file and the report as HTML to the second."""
    from pneumo.pipeline.evaluation.report.run_report import write_report

    write_text(files[0], metrics.model_dump_json(indent=2) + "\n")
    write_report(files[1], run, metrics, source.scores, lead=lead, images=source.folder)


def _report(metrics: Metrics, split: str, *files: Path) -> EvaluationReport:
    return EvaluationReport(
        **metrics.model_dump(include={"run", "data", "data_fingerprint", "classes", "positive"}),
        split=split,
        decisions=metrics.decisions,
        bootstrap=metrics.bootstrap,
        result=metrics.splits[split],
        remarks=list_remarks(metrics),
        files=[str(file) for file in files],
    )
