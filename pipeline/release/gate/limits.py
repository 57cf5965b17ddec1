"""Absolute limits of a model: its metrics against chance and against the least values that `gate.yaml` asks for."""

from collections.abc import Mapping
from typing import Literal, get_args

from pydantic import ValidationError

from pneumo.pipeline.evaluation.results import Estimate, title
from pneumo.pipeline.evaluation.stress.coverage import rank_by_coverage
from pneumo.pipeline.evaluation.stress.stress_test import FILE, StressReport
from pneumo.pipeline.release.gate.requirements import Gate, Metric
from pneumo.serving.contracts.figures import format_estimate
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.model.bundle import Bundle, BundleError

Outcome = Literal["good", "worse", "undecided"]


class LimitResult(FrozenModel):
    """One metric of a model against its limit, or against `chance`, which it must exceed.

    The outcome is `good` if the lower end of the 95% interval passes, `worse` if the value does not or is undefined,
    else `undecided`. Metrics of the stress test have no interval.
    """

    metric: str
    limit: float
    chance: bool
    estimate: Estimate
    outcome: Outcome

    @classmethod
    def judge(cls, metric: str, limit: float, estimate: Estimate, *, chance: bool = False) -> "LimitResult":
        """Judge a metric."""
        low, value = (
            each is not None and (each > limit if chance else each >= limit) for each in (estimate.low, estimate.value)
        )
        outcome: Outcome = "good" if low else "undecided" if value else "worse"
        return cls(metric=metric, limit=limit, chance=chance, estimate=estimate, outcome=outcome)

    @property
    def sentence(self) -> str:
        """Metric, limit and outcome in words."""
        if self.estimate.value is None:
            return f"{title(self.metric)} is undefined: {self.estimate.reason}"
        asked = "better than chance" if self.chance else f"{self.limit:g} or more"
        words = {"good": "reached:", "worse": "required:", "undecided": "too few images to tell whether it is"}
        return f"{title(self.metric)} is {format_estimate(self.estimate)}; {words[self.outcome]} {asked}"

    def objection(self, gate: Gate) -> str | None:
        """Return why the gate refuses because of this limit; None if it does not."""
        passed = self.outcome == "good" or (self.outcome == "undecided" and gate.undecided == "pass")
        return None if passed else self.sentence


def judge_limits(metrics: Mapping[str, Estimate], bundle: Bundle, gate: Gate) -> list[LimitResult]:
    """Judge the metrics of a bundle on some images, and its stress test.

    AUROC and balanced accuracy must in any case be better than chance. A limit of `sensitivity` with more than two
    classes, or of `coverage`, is one for each class.
    """
    asked = dict[str, float](gate.limits.items())
    classes, results = bundle.info.classes, []
    for name, chance in (("auroc", 0.5), ("balanced_accuracy", 1 / len(classes))):
        if asked.get(name, 0.0) <= chance:
            asked.pop(name, None)
            results.append(LimitResult.judge(name, chance, metrics[name], chance=True))
    measured = {**metrics, **_read_stress(bundle)}
    missing = Estimate(value=None, reason=f"not measured on these images, or not with {len(classes)} classes")
    for name, limit in asked.items():
        by_class = [f"{name}:{each}" for each in classes if f"{name}:{each}" in measured]
        results += [LimitResult.judge(each, limit, measured.get(each, missing)) for each in by_class or [name]]
    return results


def _read_stress(bundle: Bundle) -> dict[str, Estimate]:
    """Return the metrics of the stress test in a bundle; those that it lacks are undefined, with the reason."""
    values: dict[str, float | None] = {}
    reason = "no current stress test in the bundle; run `pneumo evaluate RUN --stress` and export again"
    try:
        report = StressReport.model_validate_json(bundle.read(FILE))
    except (BundleError, ValidationError):
        pass
    else:
        values = report.summary.model_dump(include={name.removeprefix("stress.") for name in get_args(Metric)})
        for name, shift in rank_by_coverage(report)[:1]:
            values["worst_coverage"] = shift.metrics[f"coverage:{name}"].value
        if report.threshold != bundle.info.thresholds.get("default"):
            values = {name: value for name, value in values.items() if "auroc" in name}
            reason = "the stress test in the bundle is of another threshold"
    names = [name for name in get_args(Metric) if name.startswith("stress.")]
    found = {name: values.get(name.removeprefix("stress.")) for name in names}
    return {name: Estimate(value=value, low=value, reason=reason) for name, value in found.items()}
