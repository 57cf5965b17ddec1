"""Fit the decisions of a run, and keep them in its folder."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from pneumo.pipeline.decisions.calibration import Labels, fit_conformal_limit, fit_temperature
from pneumo.pipeline.decisions.policies import DEFAULT_OUTLIER_QUANTILE, Cut, DecisionRules, choose_threshold
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.calibration import calibrate_logits

FILE = "decisions.json"


class Decisions(FrozenModel):
    """`decisions.json`: the parameters that turn logits into an answer.

    Attributes:
        temperature: Logits are divided by it before the softmax.
        threshold: An image is positive if the calibrated probability of the positive class is at or above it; None
            with more than two classes, when the largest probability wins.
        equivalent: The lowest and the highest threshold that do as well on the split, within two standard errors;
            None if the rule is a floor.
        conformal_level: Share of images whose prediction set should hold the ground truth.
        conformal_limit: Classes with 1 - probability at or below it stay in the set.
        outlier_quantile: Share of validation images below the outlier limit.
        fitted_on: Name of the split that all of these come from.
        notes: Values that could not be fitted, and their replacements.
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
    """Fit temperature, threshold and conformal limit on logits [N, K] of images that no weight was fitted on.

    `labels` are the ground truth's columns, [N]; `positive` is the column of the positive class with two classes, None
    with more. No threshold can be fitted on a split without images or with one class only. The temperature is 1 then,
    the threshold 0.5, no class is ruled out, and a note says so.

    Raises:
        CheckFailedError: No threshold reaches the policy's floor.
    """
    rules = rules or DecisionRules()
    temperature, limit, notes = 1.0, 1.0, []
    cut = None if positive is None else Cut(0.5)
    if len(np.unique(labels)) > 1:
        temperature = fit_temperature(logits, labels)
        probabilities = calibrate_logits(logits, temperature)
        limit = fit_conformal_limit(probabilities, labels, rules.level)
        if rules.level * (len(labels) + 1) > len(labels) + 1e-9:
            notes.append(
                f"{fitted_on} has {len(labels)} images, too few for prediction sets that cover {rules.level:.3g}: "
                "every answer is uncertain"
            )
        if positive is not None:
            cut = choose_threshold(probabilities[:, positive], labels == positive, rules.policy)
    else:
        notes.append(
            f"{fitted_on} has {'images of one class only' if len(labels) else 'no images'}: the temperature stays 1"
            f"{'' if positive is None else ' and the threshold 0.5'}; no class is ruled out, so that every answer is "
            "uncertain"
        )
    return Decisions(
        temperature=temperature,
        threshold=cut.threshold if cut else None,
        policy=str(rules.policy),
        equivalent=cut.equivalent if cut else None,
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
    """Read `decisions.json` of a run; raise an `InputError` if it was not evaluated, or the file is damaged."""
    path = run.folder / FILE
    if not path.is_file():
        raise InputError(f"{path}: missing; run `pneumo evaluate {run.name}`")
    try:
        return Decisions.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; delete it and run `pneumo evaluate {run.name}`") from None
