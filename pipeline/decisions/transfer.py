"""Decisions for another place, from a few labelled images of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pneumo.pipeline.decisions.calibration import Labels
from pneumo.pipeline.decisions.fit import Decisions, fit_decisions
from pneumo.pipeline.decisions.policies import DecisionRules
from pneumo.serving.contracts.arrays import Float64

PRIOR_IMAGES = 20
"""Images of each class that stand for the model's own validation images.

With so many, 20 labelled images of a site that is like the training data lose at most 0.004 of balanced accuracy in the
mean, with none 0.021; and 100 of a site that is not gain as much, within 0.008 (docs/benchmarks.md).
"""


@dataclass(frozen=True)
class LabelledLogits:
    """Logits [N, K] of N images, with the column of the ground truth, [N]."""

    logits: Float64
    labels: Labels

    def join(self, other: "LabelledLogits") -> "LabelledLogits":
        """Return the images of both."""
        return LabelledLogits(np.concatenate([self.logits, other.logits]), np.concatenate([self.labels, other.labels]))


def choose_representatives(logits: Float64, labels: Labels, count: int = PRIOR_IMAGES) -> np.ndarray:
    """Return the positions of at most `count` images of each class, evenly over the log odds of their ground truth."""
    own = logits[np.arange(len(labels)), labels]
    margin = own - np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits).max(axis=1)
    chosen = []
    for label in np.unique(labels):
        ordered = np.flatnonzero(labels == label)
        ordered = ordered[np.argsort(margin[ordered], kind="stable")]
        some = min(count, len(ordered))
        chosen.append(ordered[((np.arange(some) + 0.5) / some * len(ordered)).astype(int)])
    return np.concatenate(chosen) if chosen else np.zeros(0, dtype=np.intp)


def transfer_decisions(
    images: LabelledLogits,
    prior: LabelledLogits,
    *,
    positive: int | None,
    classes: Sequence[str],
    rules: DecisionRules,
    fitted_on: str,
) -> Decisions:
    """Fit decisions on images of a place, shrunk towards those of the model's own validation images.

    The scores of each class are taken to be a Dirichlet process whose base is that of validation (Ferguson, A Bayesian
    Analysis of Some Nonparametric Problems, 1973): its posterior mean is a mixture of both, in proportion to the images
    of the place and of `prior`. Temperature, threshold and conformal limits are fitted on that mixture, so that a few
    images move them a little and many determine them. `positive` is the column of the positive class with two classes.

    Raises:
        CheckFailedError: No threshold reaches the policy's floor.
    """
    mixture = images.join(prior)
    fitted_on += f" with {len(prior.labels)} of the model's own"
    fitted = fit_decisions(
        mixture.logits, mixture.labels, positive=positive, classes=classes, rules=rules, fitted_on=fitted_on
    )
    return fitted.model_copy(update={"images": len(images.labels)})
