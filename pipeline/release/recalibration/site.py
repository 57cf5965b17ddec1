"""Images of a place under a bundle's network, with decisions fitted to them."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pneumo.pipeline.data.manifest import Dataset, Row
from pneumo.pipeline.decisions import DecisionRules, Decisions
from pneumo.pipeline.decisions.outlier_limit import sample_rows
from pneumo.pipeline.decisions.policies import Policy
from pneumo.pipeline.decisions.transfer import (
    PRIOR_IMAGES,
    LabelledLogits,
    choose_representatives,
    transfer_decisions,
)
from pneumo.pipeline.evaluation.cases import Cases, Scores, positive_column, take_images
from pneumo.pipeline.export.graph_outputs import GraphOutputs, run_graph
from pneumo.serving.contracts.arrays import Float64, Mask
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.drift.samples import REFERENCE
from pneumo.serving.model.bundle import EMBEDDING_SPACE, MODEL, Bundle, BundleInfo
from pneumo.serving.model.outlier_score import OutlierScorer

LEAST_PATIENTS = 5
"""Fewest patients of each class: with fewer no class has one in each fold."""
PRIOR = "prior"
"""Name, in the column `split` of a reference, of images that stand for the model's own validation images."""

_FOLDS = 5
_LEAST = 1e-12


def explain_storage(info: BundleInfo, dataset: Dataset) -> str | None:
    """Return why the images of a data set cannot be the input of a bundle; None if they can."""
    stored, wanted = dataset.info, info.preparation
    if stored.fit is wanted.fit and stored.size >= wanted.size:
        return None
    return (
        f"{dataset.folder} is prepared at {stored.size} pixels, {stored.fit.value}; {info.id} was trained on images of "
        f"{wanted.size} pixels, {wanted.fit.value}"
    )


def read_decisions(info: BundleInfo) -> Decisions:
    """Return the decisions of a bundle."""
    fit = info.recalibration if info.recalibration and info.recalibration.counts else None
    return Decisions(
        temperature=info.temperature,
        threshold=info.thresholds.get("default"),
        policy=info.policy,
        conformal_level=info.conformal.level,
        conformal_limit=info.conformal.limit,
        outlier_quantile=info.outlier.quantile,
        fitted_on=fit.data if fit else "validation",
        images=fit.images if fit else 0,
    )


def is_fitted_to(info: BundleInfo, dataset: Dataset) -> bool:
    """Return whether the decisions of a bundle were fitted to the images of a data set by a recalibration."""
    fit = info.recalibration
    return fit is not None and bool(fit.counts) and fit.data_fingerprint == dataset.info.fingerprint


def check_input(info: BundleInfo, dataset: Dataset, labelled: Sequence[Row]) -> None:
    """Raise an `InputError` if images cannot be the input of a bundle, or the labelled ones have other classes."""
    if problem := explain_storage(info, dataset):
        size, how = info.preparation.size, info.preparation.fit.value
        raise InputError(f"{problem}; import the images with --size {size} --fit {how}")
    if unknown := sorted({row.label for row in labelled} - set(info.classes)):
        known = ", ".join(info.classes)
        raise InputError(
            f"{dataset.folder}: class {unknown[0]!r} is unknown to {info.id}, which has {known}; import again "
            f'with --rename "{unknown[0]}={info.classes[0]}" or the like'
        )


def require_patients(info: BundleInfo, dataset: Dataset, rows: Sequence[Row]) -> None:
    """Raise an `InputError` if a class has too few patients for decisions that are fitted and cross-fitted."""
    for name in info.classes:
        patients = len({row.patient for row in rows if row.label == name})
        if patients < LEAST_PATIENTS:
            raise InputError(
                f"{dataset.folder}: {name} has {patients} patients, and {LEAST_PATIENTS} are the fewest that "
                "decisions can be fitted to; without labels (`pneumo recalibrate --unlabelled`) only the outlier limit "
                "and the drift reference can be"
            )


@dataclass(frozen=True)
class Site:
    """A bundle and images of a place, with what its network makes of them.

    Attributes:
        labelled: Whether the labels are used.
    """

    bundle: Bundle
    dataset: Dataset
    outputs: GraphOutputs
    labelled: bool

    @classmethod
    def measure(cls, bundle: Bundle, dataset: Dataset, *, labelled: bool = True) -> "Site":
        """Run the network of a bundle on images of a site to which decisions can be fitted, at most 2,000.

        Raises:
            InputError: The images cannot be its input, it was trained on them, or they do not have its classes.
        """
        if dataset.info.fingerprint == bundle.info.data_fingerprint:
            name = bundle.info.id
            raise InputError(f"{dataset.folder}: {name} was trained on these images; give images of the new place")
        rows = sample_rows(dataset.rows)
        check_input(bundle.info, dataset, rows if labelled else ())
        if labelled:
            require_patients(bundle.info, dataset, rows)
        return cls.run(bundle, dataset, rows, labelled=labelled)

    @classmethod
    def run(cls, bundle: Bundle, dataset: Dataset, rows: Sequence[Row], *, labelled: bool = True) -> "Site":
        """Run the network of a bundle on some images of a data set.

        Raises:
            InputError: The images cannot be its input, or have other classes.
        """
        check_input(bundle.info, dataset, rows if labelled else ())
        return cls(bundle, dataset, run_graph(bundle.read(MODEL), dataset, rows, bundle.info.preparation), labelled)

    @cached_property
    def positive(self) -> int | None:
        """Column of the positive class, None with more than two classes."""
        return positive_column(self.bundle.info.classes, self.bundle.info.positive_class)

    @cached_property
    def outlier_scorer(self) -> OutlierScorer:
        """Score of the bundle."""
        return OutlierScorer.from_bytes(self.bundle.read(EMBEDDING_SPACE))

    @cached_property
    def outlier_scores(self) -> Float64:
        """Out-of-distribution scores of the images, [N]."""
        return self.outlier_scorer.score(self.outputs.features.embeddings, self.outputs.features.thumbnails)

    @cached_property
    def scores(self) -> Scores:
        """Logits of the images beside the ground truth."""
        return Scores.from_rows(self.outputs.rows, self.outputs.logits, self.bundle.info.classes)

    @cached_property
    def prior(self) -> pd.DataFrame:
        """Rows of the bundle's reference that stand for the validation images of its training."""
        frame = pd.read_parquet(io.BytesIO(self.bundle.read(REFERENCE)))
        if (frame["split"] == PRIOR).any():  # of a recalibrated bundle
            return frame[frame["split"] == PRIOR]
        frame = frame[frame["split"] == "validation"]
        known = frame[frame["label"].isin(self.bundle.info.classes)]
        if known.empty:
            raise InputError(f"{self.bundle.folder}: no labelled validation images in {REFERENCE}; export it again")
        logits = _to_logits(known, self.bundle.info)
        return known.iloc[choose_representatives(logits, self._columns(known))].assign(split=PRIOR)

    @cached_property
    def prior_logits(self) -> LabelledLogits:
        """Logits of those rows."""
        return LabelledLogits(_to_logits(self.prior, self.bundle.info), self._columns(self.prior))

    def rules(self, policy: str | None) -> DecisionRules:
        """Return the rules of the decisions: those of the bundle, or with another policy."""
        info = self.bundle.info
        return DecisionRules(Policy.parse(policy or info.policy), info.conformal.level, info.outlier.quantile)

    def fit(self, rules: DecisionRules, chosen: Mask | None = None) -> Decisions:
        """Fit decisions to all images, or to those in a mask [N]; raises as `transfer_decisions`."""
        scores = self.scores if chosen is None else take_images(self.scores, chosen)
        own = LabelledLogits(scores.logits, scores.truth)
        fitted_on = f"{len(own.labels)} images of {self.dataset.folder.name}"
        names = self.bundle.info.classes
        return transfer_decisions(
            own, self.prior_logits, positive=self.positive, classes=names, rules=rules, fitted_on=fitted_on
        )

    def fit_outlier_limit(self, chosen: Mask | None = None) -> float:
        """Return the outlier limit for the images, or those in a mask [N], shrunk towards the bundle's own."""
        own = self.outlier_scores if chosen is None else self.outlier_scores[chosen]
        before = self.prior["outlier_score"].to_numpy(dtype=np.float64)
        weight = PRIOR_IMAGES * len(self.bundle.info.classes) / len(before)
        scores = np.concatenate([own, before])
        weights = np.concatenate([np.ones(len(own)), np.full(len(before), weight)])
        quantile = self.bundle.info.outlier.quantile
        return max(1.0, float(np.quantile(scores, quantile, weights=weights, method="inverted_cdf")))

    def apply(self, decisions: Decisions) -> Cases:
        """Apply decisions to the images."""
        return Cases.make(self.scores, decisions, self.positive)

    def judge(self, policy: str | None = None) -> Cases:
        """Apply the bundle's decisions; cross-fitted ones with a policy, or if its own were fitted to these images.

        Probabilities are the bundle's own in any case: those of several temperatures cannot be ranked.
        """
        own = self.apply(read_decisions(self.bundle.info))
        own = replace(own, flagged=self.outlier_scores > self.bundle.info.outlier.limit)
        if policy is None and not is_fitted_to(self.bundle.info, self.dataset):
            return own
        return replace(self.cross_fit(self.rules(policy))[0], probabilities=own.probabilities)

    def cross_fit(self, rules: DecisionRules) -> tuple[Cases, Mask]:
        """Judge each image by decisions that were fitted without its patient.

        Returns:
            The images with those decisions applied, and those above the outlier limit, [N].
        """
        cases = self.apply(read_decisions(self.bundle.info))
        probabilities, answer, sets = cases.probabilities.copy(), cases.answer.copy(), cases.sets.copy()
        flagged = np.zeros(len(cases), dtype=np.bool_)
        for held_out in self._folds():
            part = Cases.make(take_images(self.scores, held_out), self.fit(rules, ~held_out), self.positive)
            probabilities[held_out], answer[held_out], sets[held_out] = part.probabilities, part.answer, part.sets
            flagged[held_out] = self.outlier_scores[held_out] > self.fit_outlier_limit(~held_out)
        return replace(cases, probabilities=probabilities, answer=answer, sets=sets, flagged=flagged), flagged

    def _folds(self) -> Iterator[Mask]:
        from sklearn.model_selection import StratifiedGroupKFold

        folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
        for _, held_out in folds.split(self.scores.logits, self.scores.truth, self.scores.patient):
            mask = np.zeros(len(self.scores.truth), dtype=np.bool_)
            mask[held_out] = True
            yield mask

    def _columns(self, frame: pd.DataFrame) -> NDArray[np.int64]:
        return np.array([self.bundle.info.classes.index(label) for label in frame["label"]], dtype=np.int64)


def _to_logits(frame: pd.DataFrame, info: BundleInfo) -> Float64:
    """Return logits [N, K] from the calibrated probabilities of a reference, up to a constant of each image."""
    probabilities = np.stack(frame["probabilities"].to_list()).astype(np.float64)
    return np.asarray(np.log(probabilities.clip(_LEAST)) * info.temperature)
