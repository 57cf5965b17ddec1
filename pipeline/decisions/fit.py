"""Fit the decisions of a run, and keep them in its folder."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from pneumo.pipeline.decisions.calibration import Labels, count_fewest_images, fit_conformal_limits, fit_temperature
from pneumo.pipeline.decisions.policies import Cut, DecisionRules, FitOn, choose_threshold
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.arrays import Float64
from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.bundle import ClassLimits
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
        conformal_level: Share of each class's images whose prediction set should hold the ground truth.
        conformal_limit: Limit of each class, in column order: with 1 - probability at or below it the class stays in
            the set. One for all classes in a run that an older pneumo evaluated.
        outlier_quantile: Share of validation images below the outlier limit.
        fitted_on: The images that all of these come from, in words; `fit_on` is the config's word for them.
        notes: Values that could not be fitted, and their replacements.
    """

    temperature: float = Field(gt=0)
    threshold: float | None = Field(ge=0, le=1)
    policy: str
    equivalent: tuple[float, float] | None = None
    conformal_level: float = Field(gt=0, lt=1)
    conformal_limit: ClassLimits
    outlier_quantile: float = Field(default=0.99, gt=0, lt=1)  # of files from before there was a choice
    fitted_on: str
    fit_on: FitOn = "validation"
    images: int
    notes: list[str] = []

    def predict(self, probabilities: Float64, positive: int | None) -> NDArray[np.int64]:
        """Choose a class for each row of calibrated probabilities [N, K]; class indices [N]."""
        if self.threshold is None or positive is None:
            return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
        return np.where(probabilities[:, positive] >= self.threshold, positive, 1 - positive).astype(np.int64)

    def limits_by_class(self, classes: Sequence[str]) -> dict[str, float]:
        """Return the conformal limit of each class."""
        return dict(zip(classes, np.broadcast_to(self.conformal_limit, len(classes)).tolist(), strict=True))


def fit_decisions(
    logits: NDArray[np.floating],
    labels: Labels,
    *,
    positive: int | None,
    classes: Sequence[str],
    rules: DecisionRules | None = None,
    fitted_on: str = "validation",
) -> Decisions:
    """Fit temperature, threshold and conformal limits on logits [N, K] of images that no weight was fitted on.

    `labels` are the ground truth's columns, [N]; `positive` is the column of the positive class with two classes, None
    with more. No threshold can be fitted on a split without images or with one class only. The temperature is 1 then,
    the threshold 0.5, no class is ruled out, and a note says so.

    Raises:
        CheckFailedError: No threshold reaches the policy's floor.
    """
    rules = rules or DecisionRules()
    temperature, limits, notes = 1.0, [1.0] * len(classes), []
    cut = None if positive is None else Cut(0.5)
    if len(np.unique(labels)) > 1:
        temperature = fit_temperature(logits, labels)
        probabilities = calibrate_logits(logits, temperature)
        limits = fit_conformal_limits(probabilities, labels, rules.level)
        counts, fewest = np.bincount(labels, minlength=len(classes)), count_fewest_images(rules.level)
        notes += [
            f"{fitted_on} has {count} {name} images, and prediction sets that cover {rules.level:.3g} of them need "
            f"{fewest}: {name} is never ruled out, so that no other answer is certain"
            for name, count in zip(classes, counts, strict=True)
            if count < fewest
        ]
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
        conformal_limit=limits,
        outlier_quantile=rules.outlier_quantile,
        fitted_on=fitted_on,
        fit_on=rules.fit_on,
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
