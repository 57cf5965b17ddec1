"""Judgement of a challenger: its bundle, its data set, its own metrics, and a comparison with the champion."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from pneumo.pipeline.data import audit as auditing
from pneumo.pipeline.data.audit import AuditReport
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.decisions.outlier_limit import sample_rows
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.measure import measure_cases
from pneumo.pipeline.evaluation.paired import compare_models
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.release.gate.gate_verdict import Check, Figure, Verdict
from pneumo.pipeline.release.gate.limits import LimitResult, judge_limits
from pneumo.pipeline.release.gate.locate_data import find_data
from pneumo.pipeline.release.gate.requirements import Gate
from pneumo.pipeline.release.recalibration.site import Site, explain_storage, is_fitted_to
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.model.bundle import Bundle, BundleError, BundleInfo
from pneumo.serving.model.registry import MODELS, read_registry, resolve

CARD = "card.md"


@dataclass(frozen=True)
class GateContext:
    """Registry, reporter, the challenger's data set if a person named it, folders of runs, and an audit of its data."""

    root: Root = MODELS
    data: Path | None = None
    runs: tuple[Path, ...] = ()
    audit: AuditReport | None = None
    reporter: Reporter = SILENT


@dataclass
class _Evidence:
    """Results so far; `champion` is the version that the alias points at."""

    champion: str | None = None
    checks: list[Check] = field(default_factory=list)
    limits: list[LimitResult] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    split: str | None = None
    images: int | None = None
    patients: int | None = None

    def add(self, name: str, passed: bool, told: str) -> None:
        self.checks.append(Check(name=name, passed=passed, told=told))


def judge_candidate(folder: Path, alias: str, gate: Gate, context: GateContext) -> Verdict:
    """Return the gate's verdict on a bundle for an alias; raise an `InputError` if registry or data set are wrong."""
    evidence = _Evidence()
    try:
        bundle = Bundle.open(folder)
    except BundleError as error:
        evidence.add("files", False, str(error))
        model = str(folder)
    else:
        model = bundle.info.id
        _collect(bundle, alias, gate, context, evidence)
    objections = [f"{check.name}: {check.told}" for check in evidence.checks if not check.passed]
    objections += [why for limit in evidence.limits if (why := limit.objection(gate))]
    objections += [why for figure in evidence.figures if (why := figure.objection(gate))]
    return Verdict(
        model=model,
        alias=alias,
        champion=evidence.champion,
        compared=bool(evidence.figures),
        split=evidence.split if evidence.limits else None,
        images=evidence.images,
        patients=evidence.patients,
        confidence=gate.confidence,
        checks=evidence.checks,
        limits=evidence.limits,
        figures=evidence.figures,
        notes=evidence.notes,
        objections=objections,
    )


def _collect(bundle: Bundle, alias: str, gate: Gate, context: GateContext, evidence: _Evidence) -> None:
    """Check the bundle and its data and compare it with the champion, until a check fails that others build on."""
    _check_bundle(bundle, gate, evidence)
    registry = read_registry(context.root)
    champion = registry.find(registry.aliases.get(alias, ""))
    evidence.champion = champion.id if champion else None
    if alias not in gate.aliases:
        evidence.notes.append(f"not compared: {alias} is not guarded (gate.yaml guards {', '.join(gate.aliases)})")
        return
    if champion is not None and champion.digest == bundle.digest:
        evidence.notes.append(f"not compared: {alias} already points at {champion.id}")
        return
    dataset = find_data(bundle, context.data, context.runs)
    if isinstance(dataset, str):
        evidence.add("data", False, dataset)
        return
    _check_audit(dataset, context, evidence)
    opponent = None
    if champion is None:
        evidence.notes.append(f"not compared: there is no {alias} yet")
    else:
        try:
            opponent = Bundle.open(resolve(champion.id, context.root))
        except BundleError as error:
            evidence.add("champion", False, str(error))
            return
    _measure(bundle, opponent, dataset, gate, context.reporter, evidence)


def _check_bundle(bundle: Bundle, gate: Gate, evidence: _Evidence) -> None:
    """Check what the bundle holds; its checksums were verified when it was opened."""
    evidence.add("files", True, f"as they were exported: the checksums of {len(bundle.info.files)} files match")
    parity = bundle.info.parity
    difference, images = parity.max_probability_difference, parity.images
    passed, count = images > 0 and difference <= gate.parity, format_count(images, "image")
    fix = "" if passed else f"; at most {gate.parity:.0e} on at least one image is required: export it again"
    told = f"its probabilities differ from the trained model's by {difference:.1e} at most, on {count}{fix}"
    evidence.add("parity", passed, told)
    has_card = CARD in bundle.info.files and bool(bundle.read(CARD).strip())
    evidence.add("card", has_card, CARD if has_card else f"no {CARD} in the bundle; export it again")


def _check_audit(dataset: Dataset, context: GateContext, evidence: _Evidence) -> None:
    report = context.audit
    if report is None:
        with context.reporter.waiting(f"auditing {format_count(len(dataset.rows), 'image')} of {dataset.folder}"):
            report = auditing.audit(dataset)
    told = f"no defect in {format_count(report.images, 'image')}"
    if defects := report.defects:
        kinds = format_count(len(defects), "kind")
        told = f"{kinds} of defect: {defects[0].summary}; see `pneumo data check {dataset.folder}`"
    evidence.add("data audit", not defects, told)


def _measure(
    challenger: Bundle, champion: Bundle | None, dataset: Dataset, gate: Gate, reporter: Reporter, evidence: _Evidence
) -> None:
    """Judge a challenger by its own metrics, and compare it with the champion if there is one."""
    is_site = is_fitted_to(challenger.info, dataset)
    rows = sample_rows(dataset.rows) if is_site else dataset.select(Split[gate.split.upper()])
    evidence.split = split = "cross-fitted" if is_site else gate.split
    mismatch = explain_mismatch(champion.info, challenger.info, dataset) if champion else None
    if mismatch is None and not rows:
        mismatch = f"{dataset.folder} has no {split} images; import it with some held back"
    if mismatch is not None:
        evidence.add("images", False, mismatch)
        return
    bundles = [challenger, champion] if champion else [challenger]
    count = format_count(len(rows), f"{split} image")
    try:
        with reporter.waiting(f"running {' and '.join(each.info.id for each in bundles)} on {count}"):
            after, *others = [Site.run(bundle, dataset, rows).judge() for bundle in bundles]
    except InputError as error:
        evidence.add("images", False, str(error))
        return
    evidence.images, evidence.patients = len(rows), after.patients
    same = ", the same for both" if champion else ""
    evidence.add("images", True, f"{count} of {format_count(after.patients, 'patient')}{same}")
    classes = challenger.info.classes
    bootstrap = Bootstrap(resamples=gate.resamples, seed=gate.seed)
    evidence.limits = judge_limits(measure_cases(after, classes, bootstrap).metrics, challenger, gate)
    if champion is None:
        return
    before = align_columns(others[0], [champion.info.classes.index(name) for name in classes])
    metrics = ["auroc", "sensitivity", "specificity"]
    if is_site:  # it gives up some of one for the other
        metrics = ["auroc", "balanced_accuracy"]
    elif after.positive is None:
        metrics = ["auroc", *(f"sensitivity:{name}" for name in classes)]
    one_sided = bootstrap.model_copy(update={"level": 2 * gate.confidence - 1})
    differences = compare_models(before, after, classes, one_sided, metrics=metrics)
    evidence.figures = [Figure.from_difference(each, gate.margins.get(each.metric)) for each in differences]
    evidence.notes.append(
        "not compared: images under change, prediction sets and subgroups; `limits` of gate.yaml can ask for them"
    )
    if champion.info.data_fingerprint != challenger.info.data_fingerprint:
        evidence.notes.append(
            f"{champion.info.id} was trained on another data set: some of these images may be among its training "
            "images, which would raise its metrics"
        )


def explain_mismatch(champion: BundleInfo, challenger: BundleInfo, dataset: Dataset) -> str | None:
    """Return why two bundles cannot be compared on a data set; None if they can."""
    if sorted(champion.classes) != sorted(challenger.classes):
        return "; ".join(f"the classes of {info.id} are {', '.join(info.classes)}" for info in (champion, challenger))
    if champion.positive_class != challenger.positive_class:
        return "; ".join(f"the positive class of {info.id} is {info.positive_class}" for info in (champion, challenger))
    return next((problem for info in (champion, challenger) if (problem := explain_storage(info, dataset))), None)


def align_columns(cases: Cases, columns: list[int]) -> Cases:
    """Return cases with their classes in another order; `columns` are the old places in the new order."""
    place = np.argsort(columns)
    return replace(
        cases,
        truth=place[cases.truth],
        answer=place[cases.answer],
        probabilities=cases.probabilities[:, columns],
        uncalibrated=cases.uncalibrated[:, columns],
        sets=cases.sets[:, columns],
        positive=None if cases.positive is None else int(place[cases.positive]),
    )
