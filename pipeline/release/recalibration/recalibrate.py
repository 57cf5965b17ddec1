"""Write a recalibrated bundle, and say how far its figures can be relied on."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.decisions import Decisions, Policy
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases
from pneumo.pipeline.evaluation.results import Bootstrap
from pneumo.pipeline.evaluation.sample_size import FLOOR, describe_power, list_rates
from pneumo.pipeline.export.bundle_export import describe_graph
from pneumo.pipeline.export.bundle_folder import write_bundle_folder
from pneumo.pipeline.export.graph_outputs import make_reference
from pneumo.pipeline.export.int8.acceptance import ClassDecisions
from pneumo.pipeline.release.recalibration.card import add_recalibration
from pneumo.pipeline.release.recalibration.site import Site, read_decisions
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.arrays import Mask
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.drift.samples import LEAST, REFERENCE
from pneumo.serving.model.bundle import MODEL, Bundle, BundleInfo, Figure, Outlier, Recalibration, seal_bundle
from pneumo.serving.model.calibration import calibrate_logits

CARD = "card.md"
FLAGGED = "out_of_distribution"

_SHOWN = ("auroc", "sensitivity", "specificity", "balanced_accuracy", "accuracy", "ppv", "npv", "ece", "coverage")
_UNCERTAIN = ("uncertain", "accuracy_certain")
_MARK = "-site-"

Figures = dict[str, Figure]


@dataclass(frozen=True)
class Recalibrated:
    """A recalibrated bundle in a folder, with remarks about what its images can show."""

    folder: Path
    info: BundleInfo
    remarks: list[str]


def recalibrate_bundle(
    bundle: Bundle,
    dataset: Dataset,
    *,
    out: Path,
    policy: str | None = None,
    labelled: bool = True,
    reporter: Reporter = SILENT,
) -> Recalibrated:
    """Write a bundle with the same network and decisions fitted to another site.

    Temperature, threshold and conformal limits are fitted to the labelled images, shrunk towards the bundle's own; the
    outlier limit and the reference for drift to all of them. Figures before and after are by patient, and cross-fitted.

    Args:
        bundle: The bundle.
        dataset: Images of the site, of which none was used to train it; all splits are used, at most 2,000 images.
        out: Folder of the new bundle; a bundle there is replaced.
        policy: Rule for the threshold; by default that of the bundle.
        labelled: Whether to use the labels; if not, only the outlier limit and the reference change.
        reporter: Receives progress.

    Raises:
        InputError: The images do not fit the bundle, are too few, or `out` holds something else.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    if policy and not labelled:
        raise InputError("--policy: a threshold cannot be fitted without labels; leave out --policy or --unlabelled")
    if len(dataset.rows) < LEAST:
        raise InputError(f"{dataset.folder}: {len(dataset.rows)} images; a reference for drift needs {LEAST}")
    reporter.message(f"running {bundle.info.id} on the images of {dataset.folder} ...")
    site = Site.measure(bundle, dataset, labelled=labelled)
    decisions = site.fit(site.rules(policy)) if labelled else read_decisions(site.bundle.info)
    limit = site.fit_outlier_limit()
    info = bundle.info
    before, after = _compare(site, policy) if labelled else _compare_flagged(site, limit)
    recalibration = Recalibration(
        base=info.id,
        data=dataset.folder.resolve().name,
        data_fingerprint=dataset.info.fingerprint,
        images=len(site.outputs.rows),
        patients=len({row.patient for row in site.outputs.rows}),
        counts=dict(sorted(Counter(row.label for row in site.outputs.rows).items())) if labelled else {},
        population=dataset.info.population,
        before=before,
        after=after,
    )
    fitted = info.model_copy(
        update={
            "schema_version": BundleInfo.model_fields["schema_version"].default,
            "version": _name_version(info, recalibration, decisions),
            "temperature": decisions.temperature,
            "thresholds": {} if decisions.threshold is None else {"default": decisions.threshold},
            "policy": decisions.policy,
            "conformal": info.conformal.model_copy(update={"limit": decisions.conformal_limit}),
            "outlier": Outlier(limit=limit, quantile=info.outlier.quantile),
            "metrics": _add_site(info.metrics, recalibration),
            "recalibration": recalibration,
        }
    )
    with write_bundle_folder(out) as folder:
        for name in bundle.info.files:
            shutil.copyfile(bundle.folder / name, folder / name)
        rules = ClassDecisions(info.classes, info.positive_class, decisions)
        (folder / MODEL).write_bytes(describe_graph(bundle.read(MODEL), info.preparation, rules))
        _build_reference(site, decisions).to_parquet(folder / REFERENCE, index=False)
        card = bundle.read(CARD).decode("utf-8") if CARD in info.files else ""
        (folder / CARD).write_text(add_recalibration(card, fitted), encoding="utf-8")
        seal_bundle(folder, fitted)
    return Recalibrated(out, Bundle.open(out).info, [*decisions.notes, *_list_remarks(fitted, site.outputs.rows)])


def _compare(site: Site, policy: str | None) -> tuple[Figures, Figures]:
    """Return the figures of the bundle's own decisions and of new ones, cross-fitted."""
    before = _figures(site, site.judge(), _flagged_before(site))
    after = _figures(site, *site.cross_fit(site.rules(policy)))
    return before, after | {"auroc": before["auroc"]}  # one network: decisions change no rank


def _compare_flagged(site: Site, limit: float) -> tuple[Figures, Figures]:
    before, after = (float(mask.mean()) for mask in (_flagged_before(site), site.outlier_scores > limit))
    return {FLAGGED: Figure(value=before)}, {FLAGGED: Figure(value=after)}


def _flagged_before(site: Site) -> Mask:
    return np.asarray(site.outlier_scores > site.bundle.info.outlier.limit)


def _figures(site: Site, cases: Cases, flagged: Mask) -> Figures:
    classes = site.bundle.info.classes
    estimates, _ = estimate_metrics(cases, classes, Bootstrap())
    by_class = [name for each in classes for name in (f"sensitivity:{each}", f"coverage:{each}")]
    figures = {
        name: Figure(value=estimate.value, low=estimate.low, high=estimate.high)
        for name in (*_SHOWN, *by_class, *_UNCERTAIN)
        if (estimate := estimates.get(name)) and estimate.value is not None
    }
    return figures | {FLAGGED: Figure(value=float(flagged.mean()))}


def _add_site(metrics: Mapping[str, Any], recalibration: Recalibration) -> dict[str, Any]:
    """Return metrics with those at the site, if it is labelled: page and registry show them first."""
    after = {name: figure.model_dump() for name, figure in recalibration.after.items() if name != FLAGGED}
    site = {"images": recalibration.images, "patients": recalibration.patients, "metrics": after}
    return {**metrics, "splits": {**({"site": site} if recalibration.counts else {}), **metrics.get("splits", {})}}


def _name_version(info: BundleInfo, recalibration: Recalibration, decisions: Decisions) -> str:
    content = recalibration.model_dump_json() + decisions.model_dump_json()
    return f"{info.version.partition(_MARK)[0]}{_MARK}{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _build_reference(site: Site, decisions: Decisions) -> pd.DataFrame:
    """Return the images of the place as the reference for drift, and those that stand for the bundle's own."""
    prior = site.prior.copy()
    probabilities = calibrate_logits(site.prior_logits.logits, decisions.temperature)
    prior["probabilities"] = list(probabilities)
    prior["probability"] = probabilities.max(axis=1) if site.positive is None else probabilities[:, site.positive]
    own = make_reference([site.outputs], site.outlier_scorer, site.positive, decisions.temperature)
    own["split"] = "validation"
    if not site.labelled:
        own["label"] = ""
    prior["patient_number"] = -1
    return pd.concat([own, prior], ignore_index=True)


def _list_remarks(info: BundleInfo, rows: Sequence[Row]) -> Iterator[str]:
    """Say what the images cannot show, in numbers."""
    recalibration = info.recalibration
    assert recalibration is not None
    if not recalibration.counts:
        yield (
            "without labels nobody can tell whether the threshold holds here: the scores of a place may be higher for "
            "normal and abnormal images alike, or because more of them are abnormal. Label some images of each class"
        )
        return
    policy = Policy.parse(info.policy)
    for metric, label in list_rates(info.classes, info.positive_class).items():
        figure = recalibration.after.get(metric)
        floor = policy.floor if policy.kind == metric and policy.floor else FLOOR
        if figure and (figure.low is None or figure.low < floor):
            patients = [row.patient for row in rows if row.label == label]
            yield describe_power(metric, label, patients, floor, figure.value)
