"""Evaluate a run: fit decisions on validation, measure every split, write metrics and report."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline import decisions as deciding
from pneumo.pipeline.config import document
from pneumo.pipeline.config.experiment import read_decision_rules
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import GROUP, Split
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
from pneumo.pipeline.evaluation.stress.shifted_validation import fit_on_shifts
from pneumo.pipeline.evaluation.subgroups import measure_subgroups
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text

if TYPE_CHECKING:
    import pandas as pd


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
    from pneumo.pipeline.evaluation.report.run_report import write_report

    info = run.info()
    scores = _read_scores(run, info)
    lead = _choose_split(scores, split, place=run.predictions)
    decisions = _fit_decisions(run, info, scores, policy)
    positive = positive_column(info.classes, info.positive)
    parts = {name: Cases.make(scores.select(name), decisions, positive) for name in SPLITS if name in scores.split}
    metrics = _measure(info, parts, decisions, Bootstrap(resamples=resamples))
    deciding.save_decisions(run, decisions)
    write_text(run.metrics, metrics.model_dump_json(indent=2) + "\n")
    write_report(run.report, metrics, parts, lead=lead, images=Path(info.data), run=run)
    return build_report(metrics, lead, run.metrics, run.folder / deciding.FILE, run.report)


def _read_scores(run: Run, info: RunInfo) -> Scores:
    """Read a run's predictions for its data set."""
    frame = read_predictions(run)
    if not any(str(name).startswith(GROUP) for name in frame.columns):
        frame = _add_groups(frame, info)
    return to_scores(frame, info.classes, place=str(run.predictions))


def _choose_split(scores: Scores, split: Split | None, *, place: Path) -> str:
    """Return the split to lead with: the given one, or the first of test, validation and train with images."""
    names = [name for name in reversed(SPLITS) if name in scores.split]
    if not names:
        raise InputError(f"{place}: no images to evaluate")
    name = names[0] if split is None else split.name.lower()
    if name not in names:
        raise InputError(f"--split {name}: {place} has no such images; it has {', '.join(names)}")
    return name


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
    rules = _read_rules(run)
    if policy:
        rules = replace(rules, policy=Policy.parse(policy))
    validation = scores.select("validation")
    if rules.fit_on == "shifts":
        return fit_on_shifts(run, info, validation, rules)
    return deciding.fit_decisions(
        validation.logits,
        validation.truth,
        positive=positive,
        classes=info.classes,
        rules=rules,
        fitted_on="cross-validation" if info.members else "validation",
    )


def _read_rules(run: Run) -> DecisionRules:
    path = run.folder / deciding.FILE
    if path.is_file():
        before = deciding.read_decisions(run)
        policy = Policy.parse(before.policy, place=f"{path}: policy")
        return DecisionRules(policy, before.conformal_level, before.outlier_quantile, before.fit_on)
    return read_decision_rules(document.read_document(run.config)) if run.config.is_file() else DecisionRules()


def measure_cases(cases: Cases, classes: list[str], settings: Bootstrap, *, subgroups: bool = True) -> SplitResult:
    """Measure the images of one split, and those of its subgroups."""
    metrics, confusion = estimate_metrics(cases, classes, settings)
    parts, worst = measure_subgroups(cases, classes, settings) if subgroups else ([], None)
    if worst:
        metrics["worst_group_auroc"] = worst.auroc
    return SplitResult(
        images=len(cases),
        patients=cases.patients,
        counts=cases.count_classes(classes),
        metrics={metric: metrics[metric] for metric in sorted(metrics, key=display_rank)},
        confusion=confusion,
        subgroups=parts,
        worst_group=worst.name if worst else None,
    )


def _measure(info: RunInfo, parts: Mapping[str, Cases], decisions: Decisions, settings: Bootstrap) -> Metrics:
    """Measure splits; subgroups of images that the weights were trained on would say nothing."""
    return Metrics(
        run=info.name,
        data=Path(info.data).name or info.data,
        data_fingerprint=info.data_fingerprint,
        classes=info.classes,
        positive=info.positive,
        decisions=decisions,
        bootstrap=settings,
        splits={
            name: measure_cases(cases, info.classes, settings, subgroups=name != "train")
            for name, cases in parts.items()
        },
    )


def build_report(metrics: Metrics, split: str, *files: Path) -> EvaluationReport:
    """Return the report of one split."""
    return EvaluationReport(
        **metrics.model_dump(include={"run", "data", "data_fingerprint", "classes", "positive"}),
        split=split,
        decisions=metrics.decisions,
        bootstrap=metrics.bootstrap,
        result=metrics.splits[split],
        remarks=list_remarks(metrics),
        files=[str(file) for file in files],
    )
