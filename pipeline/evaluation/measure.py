"""Evaluate a run: decide on validation, measure every split, write what was found."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline import decisions as deciding
from pneumo.pipeline.config import document
from pneumo.pipeline.config.experiment import read_decision_rules
from pneumo.pipeline.data import manifest
from pneumo.pipeline.data.manifest import GROUP, Dataset, Split
from pneumo.pipeline.decisions import DecisionRules, Decisions, Policy
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import (
    SPLITS,
    Cases,
    Scores,
    positive_column,
    read_predictions,
    to_scores,
)
from pneumo.pipeline.evaluation.results import (
    Bootstrap,
    EvaluationReport,
    Metrics,
    SplitResult,
    place,
    remarks,
)
from pneumo.pipeline.evaluation.subgroups import measure_subgroups
from pneumo.pipeline.runs.run import Run, RunInfo
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text

if TYPE_CHECKING:
    import pandas as pd

_LEADS = ("test", "validation", "train")


def evaluate(
    run: Run,
    *,
    split: Split = Split.TEST,
    frame: "pd.DataFrame | None" = None,
    data_name: str | None = None,
    data_fingerprint: str | None = None,
    decisions: Decisions | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> EvaluationReport:
    """Measure one split without writing anything.

    Args:
        run: A finished run.
        split: What to measure.
        frame: Predictions of another data set, columns as in `predictions.parquet`; the run's own where None.
        data_name: Name of that data set.
        data_fingerprint: Its fingerprint.
        decisions: Temperature, threshold and limit; from the run, or fitted on its validation split, where None.
        resamples: Bootstrap resamples, over patients.
        seed: Seed of the bootstrap.

    Raises:
        InputError: The run has no predictions, or they do not fit it, or the split is empty.
    """
    info = run.info()
    scores = _own_scores(run, info) if frame is None else to_scores(frame, info.classes, place=data_name or "data")
    name = _lead(scores, split, data_name or info.data)
    metrics = _measure(
        info,
        {name: scores.select(name)},
        decisions or _decisions_of(run, info),
        Bootstrap(resamples=resamples, seed=seed),
        data=data_name or _name(info),
        data_fingerprint=data_fingerprint or info.data_fingerprint,
    )
    return _report(metrics, name)


def evaluate_run(
    run: Run, *, split: Split | None = None, policy: str | None = None, resamples: int = 1000, seed: int = 0
) -> EvaluationReport:
    """Decide on validation, measure all splits, write `decisions.json`, `metrics.json` and `report.html`.

    Args:
        run: A run whose `predictions.parquet` is there.
        split: What the report leads with: test where None, or validation or train where there are no test images.
        policy: Rule for the threshold; where None the one used before, or else that of the config.
        resamples: Bootstrap resamples, over patients.
        seed: Seed of the bootstrap.

    Returns:
        The leading split.

    Raises:
        InputError: The run has no predictions, they do not fit it, the split is empty, or the policy is not a rule.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    from pneumo.pipeline.evaluation.report.run_report import write_report

    info = run.info()
    scores = _own_scores(run, info)
    lead = _lead(scores, split, info.data)
    decisions = _decide(run, info, scores, policy)
    settings = Bootstrap(resamples=resamples, seed=seed)
    splits = {name: scores.select(name) for name in SPLITS if name in scores.split}
    metrics = _measure(info, splits, decisions, settings, data=_name(info), data_fingerprint=info.data_fingerprint)
    deciding.save_decisions(run, decisions)
    write_text(run.metrics, metrics.model_dump_json(indent=2) + "\n")
    write_report(run.report, run, metrics, scores, lead=lead, images=Path(info.data))
    return _report(metrics, lead, files=[run.metrics, run.folder / deciding.FILE, run.report])


def evaluate_data(
    run: Run,
    dataset: Dataset,
    frame: "pd.DataFrame",
    *,
    split: Split | None = None,
    policy: str | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> EvaluationReport:
    """Measure a run on another data set, with the decisions of its own validation split.

    Writes `evaluation-<8 hex of the data set's fingerprint>.json` and `.html` into the run folder, nothing else.

    Args:
        run: A run that was trained.
        dataset: The data set.
        frame: Predictions for it, columns as in `predictions.parquet`.
        split: What the report leads with: test where None, or validation or train where there are no test images.
            All splits are measured.
        policy: Rule for the threshold, fitted on the run's validation split; that of the run where None.
        resamples: Bootstrap resamples, over patients.
        seed: Seed of the bootstrap.

    Raises:
        InputError: The predictions do not fit the run, or the split is empty.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    from pneumo.pipeline.evaluation.report.run_report import write_report

    info = run.info()
    name = dataset.folder.name or str(dataset.folder)
    scores = to_scores(frame, info.classes, place=name)
    lead = _lead(scores, split, name)
    decisions = _decide(run, info, _own_scores(run, info), policy) if policy else _decisions_of(run, info)
    splits = {part: scores.select(part) for part in SPLITS if part in scores.split}
    settings = Bootstrap(resamples=resamples, seed=seed)
    metrics = _measure(info, splits, decisions, settings, data=name, data_fingerprint=dataset.info.fingerprint)
    stem = f"evaluation-{dataset.info.fingerprint[:8]}"
    document, page = run.folder / f"{stem}.json", run.folder / f"{stem}.html"
    write_text(document, metrics.model_dump_json(indent=2) + "\n")
    write_report(page, run, metrics, scores, lead=lead, images=dataset.folder)
    return _report(metrics, lead, files=[document, page])


def evaluate_folder(
    run: Run, folder: Path, *, split: Split | None = None, policy: str | None = None
) -> EvaluationReport:
    """Predict a data set folder with a run's model and measure it, see `evaluate_data`.

    Raises:
        InputError: No data set there, other classes than the run's, or what `evaluate_data` raises.
    """
    dataset = manifest.read_dataset(folder)
    foreign = sorted(set(dataset.info.classes) - set(run.info().classes))
    if foreign:
        known = ", ".join(run.info().classes)
        raise InputError(f"--data {folder}: class {foreign[0]!r} is unknown to the run, which has {known}")
    if split is not None and not dataset.select(split):  # before the minutes that predicting takes
        others = ", ".join(part.name.lower() for part in Split if dataset.select(part))
        raise InputError(f"--split {split.name.lower()}: {folder} has no such images; it has {others}")
    from pneumo.pipeline.ludwig.inference import predict_dataset

    return evaluate_data(run, dataset, predict_dataset(run, dataset), split=split, policy=policy)


def _name(info: RunInfo) -> str:
    return Path(info.data).name or info.data


def _own_scores(run: Run, info: RunInfo) -> Scores:
    frame = read_predictions(run)
    if not any(str(name).startswith(GROUP) for name in frame.columns):
        frame = _with_groups(frame, info)
    return to_scores(frame, info.classes, place=str(run.predictions))


def _with_groups(frame: "pd.DataFrame", info: RunInfo) -> "pd.DataFrame":
    """Predictions of a run that is older than its data set's groups, with those of the manifest, if it is still it."""
    try:
        dataset = manifest.read_dataset(Path(info.data))
    except InputError:
        return frame
    names = manifest.group_names(dataset.rows)
    if "image" not in frame.columns or dataset.info.fingerprint != info.data_fingerprint or not names:
        return frame
    groups = {row.image: row.groups for row in dataset.rows}
    found = [groups.get(image, {}) for image in frame["image"]]
    return frame.assign(**{GROUP + name: [each.get(name, "") for each in found] for name in names})


def _decide(run: Run, info: RunInfo, scores: Scores, policy: str | None) -> Decisions:
    """Fit on validation, with the rule given, or the one the run had, or that of its config."""
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
    rules = _rules(run)
    if policy:
        rules = replace(rules, policy=Policy.parse(policy))
    validation = scores.select("validation")
    return deciding.fit_decisions(validation.logits, validation.truth, positive=positive, rules=rules)


def _rules(run: Run) -> DecisionRules:
    if (run.folder / deciding.FILE).is_file():
        before = deciding.read_decisions(run)
        policy = Policy.parse(before.policy, place=f"{run.folder / deciding.FILE}: policy")
        return DecisionRules(policy, before.conformal_level, before.outlier_quantile)
    return read_decision_rules(document.read_document(run.config)) if run.config.is_file() else DecisionRules()


def _decisions_of(run: Run, info: RunInfo) -> Decisions:
    if (run.folder / deciding.FILE).is_file():
        return deciding.read_decisions(run)
    return _decide(run, info, _own_scores(run, info), None)


def _lead(scores: Scores, split: Split | None, data: str) -> str:
    """Name of the split to lead with, which has images."""
    there = [name for name in _LEADS if name in scores.split]
    if not there:
        raise InputError(f"{data}: no images to evaluate")
    name = there[0] if split is None else split.name.lower()
    if name not in there:
        raise InputError(f"--split {name}: {data} has no such images; it has {', '.join(there)}")
    return name


def _measure(
    info: RunInfo,
    splits: dict[str, Scores],
    decisions: Decisions,
    settings: Bootstrap,
    *,
    data: str,
    data_fingerprint: str,
) -> Metrics:
    positive = positive_column(info.classes, info.positive)
    results = {}
    for name, scores in splits.items():
        cases = Cases.make(scores, decisions, positive)
        metrics, confusion = estimate_metrics(cases, info.classes, settings)
        counts = {label: int((cases.truth == column).sum()) for column, label in enumerate(info.classes)}
        # On images that the weights have seen, subgroups would say nothing.
        seen = name == "train" and data_fingerprint == info.data_fingerprint
        subgroups, worst = ([], None) if seen else measure_subgroups(cases, info.classes, settings)
        if worst:
            metrics = dict(
                sorted({**metrics, "worst_group_auroc": worst.auroc}.items(), key=lambda item: place(item[0]))
            )
        results[name] = SplitResult(
            images=len(cases),
            patients=cases.patients,
            counts=counts,
            metrics=metrics,
            confusion=confusion,
            subgroups=subgroups,
            worst_group=worst.name if worst else None,
        )
    return Metrics(
        run=info.name,
        data=data,
        data_fingerprint=data_fingerprint,
        classes=info.classes,
        positive=info.positive,
        decisions=decisions,
        bootstrap=settings,
        splits=results,
    )


def _report(metrics: Metrics, split: str, files: list[Path] | None = None) -> EvaluationReport:
    return EvaluationReport(
        **metrics.model_dump(include={"run", "data", "data_fingerprint", "classes", "positive"}),
        split=split,
        decisions=metrics.decisions,
        bootstrap=metrics.bootstrap,
        result=metrics.splits[split],
        remarks=remarks(metrics),
        files=[str(file) for file in files or []],
    )
