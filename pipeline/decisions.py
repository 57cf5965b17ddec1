"""How scores become answers: temperature, threshold and conformal limit, fitted on validation only."""

import math
import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.runs import Run, write_text
from serving.errors import CheckFailedError, InputError, first_problem
from serving.scores import Floats, calibrated

FILE = "decisions.json"
DEFAULT_POLICY = "max balanced accuracy"
DEFAULT_LEVEL = 0.9
TEMPERATURES = (0.25, 10.0)
"""Bounds of the temperature: outside of them a validation split is too small or too odd to be believed."""

Labels = NDArray[np.integer]


class Decisions(BaseModel):
    """`decisions.json`: how logits become an answer.

    Attributes:
        temperature: Logits are divided by it before the softmax.
        threshold: An image is positive where the calibrated probability of the positive class is at or above it; None
            with more than two classes, where the largest probability wins.
        policy: The rule that chose the threshold.
        conformal_level: Share of images whose conformal set should hold the true class.
        conformal_limit: Classes with 1 - probability at or below it stay in the set.
        fitted_on: Name of the split that all of these come from.
        images: Images in that split.
        notes: What could not be fitted, and what was taken instead.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(gt=0)
    threshold: float | None = Field(ge=0, le=1)
    policy: str
    conformal_level: float = Field(gt=0, lt=1)
    conformal_limit: float = Field(ge=0, le=1)
    fitted_on: str
    images: int
    notes: list[str] = []

    def predict(self, probabilities: Floats, positive: int | None) -> NDArray[np.int64]:
        """Choose a class for each row of calibrated probabilities [N, K]; class indices [N]."""
        if self.threshold is None or positive is None:
            return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
        return np.where(probabilities[:, positive] >= self.threshold, positive, 1 - positive).astype(np.int64)


@dataclass(frozen=True)
class Policy:
    """A parsed rule for the threshold: the best balanced accuracy, or a floor under a rate."""

    kind: Literal["balanced accuracy", "sensitivity", "specificity"]
    floor: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Read `max balanced accuracy`, `sensitivity >= 0.95` or `specificity >= 0.9`.

        Raises:
            InputError: The text is none of these, or the floor lies outside (0, 1].
        """
        plain = " ".join(text.lower().split())
        if plain == DEFAULT_POLICY:
            return cls("balanced accuracy")
        match = re.fullmatch(r"(sensitivity|specificity) ?>= ?(\d+(?:\.\d*)?|\.\d+)", plain)
        if not match:
            raise InputError(
                f"--policy {text!r}: not a rule; write 'max balanced accuracy', 'sensitivity >= 0.95' or "
                "'specificity >= 0.9'"
            )
        floor = float(match[2])
        if not 0 < floor <= 1:
            raise InputError(f"--policy {text!r}: the floor must be above 0 and at most 1, such as 0.95")
        return cls("sensitivity" if match[1] == "sensitivity" else "specificity", floor)

    def __str__(self) -> str:
        return DEFAULT_POLICY if self.floor is None else f"{self.kind} >= {self.floor:g}"


def decide(
    logits: NDArray[np.floating],
    labels: Labels,
    *,
    positive: int | None,
    policy: str = DEFAULT_POLICY,
    level: float = DEFAULT_LEVEL,
    fitted_on: str = "validation",
) -> Decisions:
    """Fit temperature, threshold and conformal limit on images that no weight was fitted on.

    A split without images or with one class only cannot say where to cut: then the temperature is 1, the threshold 0.5
    and no class is ruled out where nothing is known, with a note that says so.

    Args:
        logits: [N, K].
        labels: Index of the true class, [N].
        positive: Column of the positive class with two classes, None with more.
        policy: Rule for the threshold, see `Policy.parse`.
        level: Wanted coverage of the conformal sets, in (0, 1).
        fitted_on: Name of the split, for the record.

    Raises:
        InputError: The policy or the level makes no sense.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    rule = Policy.parse(policy)
    if not 0 < level < 1:
        raise InputError(f"conformal level {level}: must lie between 0 and 1, such as 0.9")
    notes = []
    several = len(np.unique(labels)) > 1
    if not several:
        notes.append(
            f"{fitted_on} has {'images of one class only' if len(labels) else 'no images'}: the temperature stays 1"
            + (" and the threshold 0.5" if positive is not None else "")
        )
    temperature = fit_temperature(logits, labels) if several else 1.0
    probabilities = calibrated(logits, temperature)
    threshold = None
    if positive is not None:
        threshold = choose_threshold(probabilities[:, positive], labels == positive, rule) if several else 0.5
    return Decisions(
        temperature=temperature,
        threshold=threshold,
        policy=str(rule),
        conformal_level=level,
        conformal_limit=conformal_limit(probabilities, labels, level),
        fitted_on=fitted_on,
        images=len(labels),
        notes=notes,
    )


def fit_temperature(logits: NDArray[np.floating], labels: Labels) -> float:
    """Find the temperature with the least negative log-likelihood (Guo et al., 2017), on a log scale within bounds.

    The targets are Platt's (Probabilistic Outputs for Support Vector Machines, 1999): (n + 1) / (n + K) instead of 1
    for the true class of n images, the rest shared. On a split that the model separates perfectly the plain likelihood
    has its optimum at temperature 0; with these it is finite, and with some hundred images hardly moves otherwise.

    Args:
        logits: [N, K], N > 0.
        labels: Index of the true class, [N].
    """
    from scipy.optimize import minimize_scalar

    images, classes = logits.shape
    count = np.bincount(labels, minlength=classes)[labels]
    targets = np.repeat((1.0 / (count + classes))[:, None], classes, axis=1)
    targets[np.arange(images), labels] = (count + 1.0) / (count + classes)

    def loss(log_temperature: float) -> float:
        scaled = np.asarray(logits, dtype=np.float64) / math.exp(log_temperature)
        top = scaled.max(axis=1, keepdims=True)
        log_sum = top + np.log(np.exp(scaled - top).sum(axis=1, keepdims=True))
        return float((targets * (log_sum - scaled)).sum() / images)

    low, high = map(math.log, TEMPERATURES)
    found = minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return float(math.exp(found.x))


def choose_threshold(scores: Floats, truth: NDArray[np.bool_], policy: Policy) -> float:
    """Choose where to cut: midway between two neighbouring scores, so that new images near either fall as these did.

    Of cuts with the same balanced accuracy the one with the higher sensitivity wins; a floor on sensitivity takes the
    highest cut that keeps it, a floor on specificity the lowest.

    Args:
        scores: Probability of the positive class, [N].
        truth: Whether an image is positive, [N]; both kinds occur.
        policy: The rule.

    Returns:
        A threshold in [0, 1]: positive is at or above it.

    Raises:
        CheckFailedError: No threshold reaches the floor.
    """
    distinct = np.unique(scores)
    middle = (distinct[:-1] + distinct[1:]) / 2
    # Between adjacent floats the middle rounds to the lower one, which would move that image across.
    middle = np.where(middle > distinct[:-1], middle, distinct[1:])
    above = (distinct[-1] + 1) / 2
    cuts = np.concatenate(([distinct[0] / 2], middle, [above] if above > distinct[-1] else []))
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    # Whole numbers, so that equal rates compare as equal.
    found = len(positives) - np.searchsorted(positives, cuts, side="left")
    rejected = np.searchsorted(negatives, cuts, side="left")
    if policy.floor is None:
        return float(cuts[np.argmax(found * len(negatives) + rejected * len(positives))])
    if policy.kind == "sensitivity":
        return float(cuts[np.flatnonzero(found >= policy.floor * len(positives) - 1e-9)[-1]])
    enough = np.flatnonzero(rejected >= policy.floor * len(negatives) - 1e-9)
    if not len(enough):
        best = rejected.max() / len(negatives)
        raise CheckFailedError(f"policy {str(policy)!r}: no threshold reaches it on validation; the best is {best:.4f}")
    return float(cuts[enough[0]])


def conformal_limit(probabilities: Floats, labels: Labels, level: float) -> float:
    """Return the split-conformal quantile of 1 - p(true class), with the finite-sample correction.

    It is the ceil((n + 1) level)-th smallest score, so that a new exchangeable image is covered with a probability of
    at least `level`; 1, which rules nothing out, where n is too small for that (Sadinle et al., 2019).

    Args:
        probabilities: [N, K].
        labels: Index of the true class, [N].
        level: Wanted coverage, in (0, 1).
    """
    images = len(labels)
    rank = math.ceil((images + 1) * level - 1e-9)  # 10 * 0.7 is a little above 7
    if rank > images:
        return 1.0
    return float(np.sort(1.0 - probabilities[np.arange(images), labels])[rank - 1])


def save(run: Run, decisions: Decisions) -> None:
    """Write `decisions.json` into a run folder, atomically."""
    write_text(run.folder / FILE, decisions.model_dump_json(indent=2) + "\n")


def read(run: Run) -> Decisions:
    """Read `decisions.json` of a run.

    Raises:
        InputError: The run was not evaluated, or the file is damaged.
    """
    path = run.folder / FILE
    if not path.is_file():
        raise InputError(f"{path}: missing; run `pneumo evaluate {run.name}`")
    try:
        return Decisions.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; delete it and run `pneumo evaluate {run.name}`") from None
