"""Fit the decisions of a run, and keep them in its folder."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from pneumo.pipeline.decisions.calibration import Labels, fit_conformal_limit, fit_temperature
from pneumo.pipeline.decisions.decision_rules import DEFAULT_OUTLIER_QUANTILE, DecisionRules
from pneumo.pipeline.decisions.policies import Cut, choose_threshold
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.calibration import calibrate_logits

FILE = "decisions.json"


class Decisions(FrozenModel):
    """`decisions.json`: how logits become an answer.

    Attributes:
        temperature: Logits are divided by it before the softmax.
        threshold: An image is positive where the calibrated probability of the positive class is at or above it; None
            with more than two classes, where the largest probability wins.
        policy: The rule that chose the threshold.
        equivalent: The lowest and the highest threshold that do as well on the split, within two standard errors;
            None where the rule is a floor.
        conformal_level: Share of images whose conformal set should hold the true class.
        conformal_limit: Classes with 1 - probability at or below it stay in the set.
        outlier_quantile: Share of validation images that pass the out-of-distribution limit.
        fitted_on: Name of the split that all of these come from.
        images: Images in that split.
        notes: What could not be fitted, and what was taken instead.
    """

    temperature: float = Field(gt=0)
    threshold: float | None = Field(ge=0, le=1)
    policy: str
    equivalent: tuple[float, float] | None = None
    conformal_level: float = Field(gt=0, lt=1)
    conformal_limit: float = Field(ge=0, le=1)
    outlier_quantile: float = Field(default=DEFAULT_OUTLIER_QUANTILE, gt=0, lt=1)
    fitted_on: str
    images: int
    notes: list[str] = []

    def predict(self, probabilities: Float64, positive: int | None) -> NDArray[np.int64]:
        """Choose a class for each row of calibrated probabilities [N, K]; class indices [N]."""
        if self.threshold is None or positive is None:
            return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
        return np.where(probabilities[:, positive] >= self.threshold, positive, 1 - positive).astype(np.int64)


def fit_decisions(
    logits: NDArray[np.floating],
    labels: Labels,
    *,
    positive: int | None,
    rules: DecisionRules | None = None,
    fitted_on: str = "validation",
) -> Decisions:
    """Fit temperature, threshold and conformal limit on images that no weight was fitted on.

    A split without images or with one class only cannot say where to cut: then the temperature is 1, the threshold 0.5
    and no class is ruled out, with a note that says so.

    Args:
        logits: [N, K].
        labels: Index of the true class, [N].
        positive: Column of the positive class with two classes, None with more.
        rules: What is asked for; the defaults where None.
        fitted_on: Name of the split, for the record.

    Raises:
        CheckFailedError: No threshold reaches the policy's floor.
    """
    rules = rules or DecisionRules()
    notes = []
    several = len(np.unique(labels)) > 1
    if not several:
        notes.append(
            f"{fitted_on} has {'images of one class only' if len(labels) else 'no images'}: the temperature stays 1"
            + (" and the threshold 0.5" if positive is not None else "")
            + "; no class is ruled out, so that every answer is uncertain"
        )
    temperature = fit_temperature(logits, labels) if several else 1.0
    probabilities = calibrate_logits(logits, temperature)
    limit = fit_conformal_limit(probabilities, labels, rules.level) if several else 1.0
    if several and rules.level * (len(labels) + 1) > len(labels) + 1e-9:
        notes.append(
            f"{fitted_on} has {len(labels)} images, too few for sets that cover {rules.level:.3g}: every answer is "
            "uncertain"
        )
    cut = None
    if positive is not None:
        cut = choose_threshold(probabilities[:, positive], labels == positive, rules.policy) if several else Cut(0.5)
    return Decisions(
        temperature=temperature,
        threshold=cut.threshold if cut else None,
        policy=str(rules.policy),
        equivalent=(cut.low, cut.high) if cut and cut.low is not None and cut.high is not None else None,
        conformal_level=rules.level,
        conformal_limit=limit,
        outlier_quantile=rules.outlier_quantile,
        fitted_on=fitted_on,
        images=len(labels),
        notes=notes,
    )


def save_decisions(run: Run, decisions: Decisions) -> None:
    """Write `decisions.json` into a run folder, atomically."""
    write_text(run.folder / FILE, decisions.model_dump_json(indent=2) + "\n")


def read_decisions(run: Run) -> Decisions:
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
