"""Evaluation of a bundle on labelled images of a site: what they can show, metrics, limits, mistakes as pictures."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from pneumo.pipeline.data.manifest import Dataset, Row, Split
from pneumo.pipeline.decisions import Policy
from pneumo.pipeline.evaluation import results
from pneumo.pipeline.evaluation.measure import build_report, measure_cases
from pneumo.pipeline.evaluation.report.run_report import write_report
from pneumo.pipeline.evaluation.results import Bootstrap, EvaluationReport, Metrics, SplitResult
from pneumo.pipeline.evaluation.sample_size import FLOOR, describe_power, list_rates
from pneumo.pipeline.release.gate import Gate, read_gate
from pneumo.pipeline.release.gate.limits import LimitResult, judge_limits
from pneumo.pipeline.release.recalibration import site as sites
from pneumo.pipeline.release.recalibration.site import Site
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.drift.samples import REFERENCE
from pneumo.serving.model.bundle import Bundle, BundleInfo

_REFIT = "with the policy"
_TOO_MANY = 0.1
"""Share of images from the training data above which an evaluation is refused."""


class SiteReport(EvaluationReport):
    """Evaluation of a bundle, whose `name:version` is `run`, at a site.

    Attributes:
        power: Sentences on what the images can show about each rate, whatever the model makes of them.
        facts: Sentences on limits that are reached and on the share of out-of-distribution images.
        flagged: Share of images called out-of-distribution.
        limits: Metrics against chance and the limits of a gate; `objections` says which of that gate are not met.
        refit: Metrics with the threshold of another policy, `refit_threshold`, cross-fitted.
    """

    power: list[str]
    facts: list[str]
    flagged: float
    limits: list[LimitResult]
    objections: list[str]
    refit: SplitResult | None
    refit_threshold: float | None


def evaluate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    *,
    out: Path = Path("evaluations"),
    split: Split | None = None,
    policy: str | None = None,
    limits: Path | None = None,
) -> SiteReport:
    """Measure a bundle on a site's labelled images, all or one split; write a report (JSON, HTML) into a folder.

    Decisions that were fitted to these images are replaced by cross-fitted ones. With a `policy` a threshold is fitted
    to the images besides, cross-fitted; `limits` is the file of a gate whose limits are judged.

    Raises:
        InputError: The images do not fit the bundle or trained it, another argument is wrong, or `out` cannot be
            written or is in the bundle.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    info, gate = bundle.info, read_gate(limits) if limits else Gate()
    rows = _choose_rows(info, dataset, split)
    sites.check_input(info, dataset, rows)
    if policy and info.positive_class is None:
        raise InputError(f"--policy {policy!r}: {info.id} has {len(info.classes)} classes and no threshold")
    if policy or sites.is_fitted_to(info, dataset):
        sites.require_patients(info, dataset, rows)
    if out.resolve().is_relative_to(bundle.folder.resolve()):
        raise InputError(f"--out {out}: lies in the bundle, which is sealed; choose another folder")
    power = list(_plan(info, rows, Policy.parse(policy or info.policy), gate))
    site = Site.run(bundle, dataset, rows)
    cases, settings = site.judge(), Bootstrap()
    lead = "site" if split is None else split.name.lower()
    splits = {lead: measure_cases(cases, info.classes, settings)}
    judged = judge_limits(splits[lead].metrics, bundle, gate)
    flagged = float((site.outlier_scores > info.outlier.limit).mean())
    notes, facts = list(_list_origins(site)), [each.sentence for each in judged if each.outcome == "good"]
    notes += [each.sentence for each in judged if each.outcome != "good"]
    facts.append(f"{flagged:.1%} of the images are called out-of-distribution")
    threshold = site.fit(site.rules(policy)).threshold if policy else None
    if policy:
        splits[_REFIT] = measure_cases(site.judge(policy), info.classes, settings)
        facts.append(f"with the policy {policy}, fitted to these images, the threshold would be {threshold:.4g}")
    metrics = Metrics(
        run=info.id,
        data=dataset.folder.name or str(dataset.folder),
        data_fingerprint=dataset.info.fingerprint,
        classes=info.classes,
        positive=info.positive_class,
        decisions=sites.read_decisions(info).model_copy(update={"notes": notes}),
        bootstrap=settings,
        splits=splits,
    )
    stem = f"{info.name}-{info.version}-{dataset.info.fingerprint[:8]}{'' if split is None else f'-{lead}'}"
    report = SiteReport(
        **build_report(metrics, lead, out / f"{stem}.json", out / f"{stem}.html").model_dump(),
        power=power,
        facts=facts,
        flagged=flagged,
        limits=judged,
        objections=[why for each in judged if limits and (why := each.objection(gate))],
        refit=splits.get(_REFIT),
        refit_threshold=threshold,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / f"{stem}.json", report.model_dump_json(indent=2) + "\n")
        page, parts = out / f"{stem}.html", {lead: cases}
        write_report(page, metrics, parts, lead=lead, images=dataset.folder, power=power, facts=facts)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    return report


def _choose_rows(info: BundleInfo, dataset: Dataset, split: Split | None) -> tuple[Row, ...]:
    """Return all images, or those of a split; of the data that a bundle was trained on only its test images."""
    if dataset.info.fingerprint == info.data_fingerprint and split is not Split.TEST:
        raise InputError(
            f"{dataset.folder}: {info.id} was trained on these images, which are no evidence: give images of the site, "
            "or --split test, which it was not trained on and which says nothing about another place"
        )
    if split is None:
        return dataset.rows
    if rows := dataset.select(split):
        return rows
    others = ", ".join(part.name.lower() for part in Split if dataset.select(part))
    raise InputError(f"--split {split.name.lower()}: {dataset.folder} has no such images; it has {others}")


def _plan(info: BundleInfo, rows: Sequence[Row], rule: Policy, gate: Gate) -> Iterator[str]:
    """Say what the images can show about each rate, before the network has seen them."""
    limits = dict[str, float](gate.limits.items())
    splits = results.values_by_split(info.metrics)
    known = splits.get("validation", {}) | splits.get("test", {}) | splits.get("site", {})
    for metric, label in list_rates(info.classes, info.positive_class).items():
        floor = limits.get(metric.partition(":")[0]) or (rule.floor if rule.kind == metric else None) or FLOOR
        patients = [row.patient for row in rows if row.label == label]
        yield describe_power(metric, label, patients, floor, known.get(metric))


def _list_origins(site: Site) -> Iterator[str]:
    """Say which images are no evidence about another place; raise an `InputError` if they are many."""
    info, dataset, images = site.bundle.info, site.dataset, len(site.outputs.rows)
    if sites.is_fitted_to(info, dataset):
        yield (
            f"{info.id} was fitted to these images: each is judged by cross-fitted decisions, in which its patient "
            "took no part; only calibration errors are of the fitted temperature"
        )
    elif dataset.info.fingerprint == info.data_fingerprint:
        yield f"{info.id} was trained on other images of this data set: these say nothing about another place"
    elif known := _count_known(site):
        told = f"{known} of {images} images are among those that {info.id} was trained on, and no evidence"
        if known > _TOO_MANY * images:
            raise InputError(f"{dataset.folder}: {told}; import the images of the site alone")
        yield told


def _count_known(site: Site) -> int:
    """Count the images whose descriptors are, to the bit, those of an image that the bundle was trained on."""
    if REFERENCE not in site.bundle.info.files:
        return 0
    reference = pd.read_parquet(io.BytesIO(site.bundle.read(REFERENCE)))
    if site.bundle.info.recalibration:  # the others are of that site
        reference = reference[reference["split"] == sites.PRIOR]
    here = pd.DataFrame(site.outputs.descriptors)
    names = [name for name in here.columns if name in reference.columns]
    return len(here.merge(reference[names].drop_duplicates(), on=names))
