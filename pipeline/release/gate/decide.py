"""Judge a challenger: is its bundle whole and proven, its data sound, and is it as good as the champion."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.data import audit as auditing
from pneumo.pipeline.data.audit import AuditReport
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.evaluation.paired import compare_models
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.release.gate.gate_verdict import Check, Figure, Verdict
from pneumo.pipeline.release.gate.locate_data import find_data
from pneumo.pipeline.release.gate.measure import explain_mismatch, measure_bundles
from pneumo.pipeline.release.gate.requirements import Gate
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.model.bundle import Bundle, BundleError
from pneumo.serving.model.registry import MODELS, read_registry, resolve

CARD = "card.md"


@dataclass(frozen=True)
class GateContext:
    """Where the gate looks, and what is known already.

    Attributes:
        root: The registry.
        data: Folder of the challenger's data set, where a person named it.
        runs: Folders of runs, where the challenger's run may lie.
        audit: The audit of its data set, where it was made just now.
        reporter: Receives progress.
    """

    root: Root = MODELS
    data: Path | None = None
    runs: tuple[Path, ...] = ()
    audit: AuditReport | None = None
    reporter: Reporter = SILENT


def judge_candidate(folder: Path, alias: str, gate: Gate, around: GateContext) -> Verdict:
    """Say whether a bundle may be what an alias means.

    Args:
        folder: The challenger's bundle.
        alias: What shall mean it.
        gate: The limits.
        around: Where to look.

    Returns:
        The verdict. An alias that the gate does not guard is judged by the bundle alone.

    Raises:
        InputError: The registry is damaged, or `data` is not the challenger's data set.
    """
    try:
        bundle = Bundle.open(folder)
    except BundleError as error:
        return _verdict(str(folder), alias, gate, [Check(name="files", passed=False, told=str(error))])
    checks = list(_of_bundle(bundle, gate))
    registry = read_registry(around.root)
    champion = registry.find(registry.aliases.get(alias, ""))
    if alias not in gate.aliases:
        note = f"{alias} is not guarded (gate.yaml guards {', '.join(gate.aliases)}): not compared with anything"
        return _verdict(bundle.info.id, alias, gate, checks, champion=champion.id if champion else None, notes=[note])
    if champion is not None and champion.digest == bundle.digest:
        note = f"{alias} means {champion.id} already"
        return _verdict(bundle.info.id, alias, gate, checks, champion=champion.id, notes=[note])
    found = find_data(bundle, around.data, around.runs)
    if isinstance(found, str):
        checks.append(Check(name="data", passed=False, told=found))
        return _verdict(bundle.info.id, alias, gate, checks, champion=champion.id if champion else None)
    checks.append(_audit(found, around))
    if champion is None:
        note = f"nothing is {alias} yet: not compared with anything"
        return _verdict(bundle.info.id, alias, gate, checks, notes=[note])
    try:
        other = Bundle.open(resolve(champion.id, around.root))
    except BundleError as error:
        checks.append(Check(name="champion", passed=False, told=str(error)))
        return _verdict(bundle.info.id, alias, gate, checks, champion=champion.id)
    return _compared(other, bundle, alias, gate, found, checks, around.reporter)


def _of_bundle(bundle: Bundle, gate: Gate) -> Iterable[Check]:
    """What the bundle must hold by itself; that its files are those that were sealed is known by now."""
    yield Check(name="files", passed=True, told=f"{len(bundle.info.files)} files are those that were sealed")
    parity = bundle.info.parity
    difference, images = parity.max_probability_difference, parity.images
    told = f"agrees with the trained model to {difference:.1e} on {images} images"
    proven = images > 0 and difference <= gate.parity
    mend = "" if proven else f"; {gate.parity:.0e} on at least one is asked: export it again"
    yield Check(name="parity", passed=proven, told=told + mend)
    held = CARD in bundle.info.files and bool(bundle.read(CARD).strip())
    yield Check(name="card", passed=held, told=CARD if held else f"no {CARD} in the bundle; export it again")


def _audit(dataset: Dataset, around: GateContext) -> Check:
    report = around.audit
    if report is None:
        around.reporter.message(f"auditing the {len(dataset.rows)} images of {dataset.folder} ...")
        report = auditing.audit(dataset)
    if report.defects:
        told = f"{report.defects[0].summary}; see `pneumo data check {dataset.folder}`"
        return Check(name="data audit", passed=False, told=f"{len(report.defects)} kinds of defect: {told}")
    return Check(name="data audit", passed=True, told=f"no defect in {report.images} images")


def _compared(
    champion: Bundle,
    challenger: Bundle,
    alias: str,
    gate: Gate,
    dataset: Dataset,
    checks: list[Check],
    reporter: Reporter,
) -> Verdict:
    rows = dataset.select(Split[gate.split.upper()])
    why = explain_mismatch(champion.info, challenger.info, dataset)
    if why is None and not rows:
        why = f"{dataset.folder} has no {gate.split} images; import it with some held back"
    if why is not None:
        checks.append(Check(name="same images", passed=False, told=why))
        return _verdict(challenger.info.id, alias, gate, checks, champion=champion.info.id)
    reporter.message(f"running {champion.info.id} and {challenger.info.id} on {len(rows)} {gate.split} images ...")
    try:
        after, before = measure_bundles([challenger, champion], dataset, rows)
    except InputError as error:
        checks.append(Check(name="same images", passed=False, told=str(error)))
        return _verdict(challenger.info.id, alias, gate, checks, champion=champion.info.id)
    told = f"{len(rows)} {gate.split} images of {after.patients} patients, the same for both"
    checks.append(Check(name="same images", passed=True, told=told))
    settings = Bootstrap(level=2 * gate.confidence - 1, resamples=gate.resamples, seed=gate.seed)
    classes = challenger.info.classes
    names = (
        ["sensitivity", "specificity"] if after.positive is not None else [f"sensitivity:{name}" for name in classes]
    )
    differences = compare_models(before, after, classes, settings, metrics=["auroc", *names])
    notes = []
    if champion.info.data_fingerprint != challenger.info.data_fingerprint:
        notes.append(
            f"{champion.info.id} was trained on another data set: some of these images may have been among its own, "
            "which would flatter it"
        )
    return _verdict(
        challenger.info.id,
        alias,
        gate,
        checks,
        champion=champion.info.id,
        figures=[Figure.from_difference(each, gate.margins.get(each.metric)) for each in differences],
        notes=notes,
        images=len(rows),
        patients=after.patients,
    )


def _verdict(
    model: str,
    alias: str,
    gate: Gate,
    checks: list[Check],
    *,
    champion: str | None = None,
    figures: list[Figure] | None = None,
    notes: list[str] | None = None,
    images: int | None = None,
    patients: int | None = None,
) -> Verdict:
    figures = figures or []
    objections = [f"{check.name}: {check.told}" for check in checks if not check.passed]
    objections += [why for figure in figures if (why := figure.objection(gate))]
    return Verdict(
        model=model,
        alias=alias,
        champion=champion,
        compared=bool(figures),
        split=gate.split if figures else None,
        images=images,
        patients=patients,
        confidence=gate.confidence,
        checks=checks,
        figures=figures,
        notes=notes or [],
        objections=objections,
    )
