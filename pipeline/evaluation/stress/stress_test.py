"""Stress test of a run: its validation images, changed as another scanner, operator or export would change them.

A validation split of the same source hardly separates good models from brittle ones: nearly all reach the same AUROC on
it. The test images stay unseen.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from pydantic import ValidationError

from pneumo.pipeline import decisions as deciding
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.decisions.outlier_limit import OutlierLimit, sample_rows
from pneumo.pipeline.evaluation.bootstrap import estimate_metrics
from pneumo.pipeline.evaluation.cases import Cases, Scores, positive_column
from pneumo.pipeline.evaluation.results import Bootstrap, Estimate
from pneumo.pipeline.evaluation.run_dataset import read_run_dataset
from pneumo.pipeline.evaluation.stress.shifts import Shift, Use, list_shifts
from pneumo.pipeline.evaluation.stress.stored_images import StoredImages
from pneumo.pipeline.ludwig import runtime
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel

FILE = "stress.json"
IMAGES = 200
"""Most images that are changed: with some seventy changes these are 14,000 predictions."""

SHOWN = ("auroc", "balanced_accuracy", "sensitivity", "specificity", "coverage", "uncertain")


FAMILY_COLUMNS = ("mean of", "changes", "AUROC", "lowest", "sensitivity", "specificity", "lowest at")
REPORT_ONLY = "report: changes that nothing was fitted, selected, stopped or augmented on."


class ShiftResult(FrozenModel):
    """Metrics under one change, by the names in `results.TITLES`; rates are at the run's decision threshold.

    Attributes:
        family: Cause of the change; None in reports of an older pneumo, and without a change.
        use: What else the change may be used for; `report` if for nothing.
        flagged: Share of images called out-of-distribution; None in some reports of an older pneumo.
    """

    name: str
    strength: str
    metrics: dict[str, Estimate]
    flagged: float | None
    family: str | None = None
    use: str | None = None

    @property
    def title(self) -> str:
        """Kind and strength."""
        return f"{self.name}, {self.strength}" if self.strength else self.name


class Summary(FrozenModel):
    """Mean and worst of the metrics over some changes; None if a metric is undefined under every change.

    `worst_shift` is the change with the lowest AUROC. Rates are at the run's decision threshold.
    """

    changes: int = 0
    mean_auroc: float | None
    worst_auroc: float | None
    worst_shift: str | None
    mean_sensitivity: float | None = None
    mean_specificity: float | None = None
    mean_balanced_accuracy: float | None
    worst_balanced_accuracy: float | None


class StressReport(FrozenModel):
    """`stress.json`: a run's validation images without a change and under each change of `shifts.list_shifts`.

    Rates are at `threshold`, the run's decision threshold. Classes are in column order. `families` has the changes by
    cause, and as `report` those that nothing was fitted, selected, stopped or augmented on.
    """

    schema_version: int = 1
    run: str
    data: str
    data_fingerprint: str
    split: str
    images: int
    patients: int
    classes: list[str]
    positive: str | None
    threshold: float | None
    bootstrap: Bootstrap
    unchanged: ShiftResult
    shifts: list[ShiftResult]
    summary: Summary
    families: dict[str, Summary] = {}


def run_stress_test(
    run: Run, *, images: int = IMAGES, resamples: int = 200, progress: Callable[[str], None] = lambda _: None
) -> StressReport:
    """Measure validation images under every change of `list_shifts`; write `stress.json` into the run folder.

    At most `images` are changed, evenly over the split. `progress` is called with the title of each step. Raises an
    `InputError` without model or decisions, or if the data set is gone, has changed or has no validation images.
    """
    from pneumo.pipeline.ludwig.inference import load_model, predict_outputs

    info = run.info()
    decisions = deciding.read_decisions(run)
    dataset = read_run_dataset(info)
    rows = sample_rows(dataset.select(Split.VALIDATION), images)
    if not rows:
        raise InputError(
            f"{info.data}: no validation images, which --stress changes; import it with a validation split"
        )
    stored = StoredImages.read(dataset, rows, info)
    progress("loading Ludwig")
    with runtime.log_to_file(run.log):
        model = load_model(run)
    progress("known images")
    guard = OutlierLimit.from_model(
        lambda inputs: predict_outputs(model, info, inputs)[1], info, dataset, quantile=decisions.outlier_quantile
    )
    settings = Bootstrap(resamples=resamples)

    def measure(shift: Shift | None) -> ShiftResult:
        progress(shift.title if shift else "unchanged")
        inputs = stored.change(shift)
        logits, embedding = predict_outputs(model, info, inputs)
        scores = Scores.from_rows(rows, logits, info.classes)
        flagged = guard.find_above(embedding, inputs)
        cases = replace(Cases.make(scores, decisions, positive_column(info.classes, info.positive)), flagged=flagged)
        metrics, _ = estimate_metrics(cases, info.classes, settings)
        return ShiftResult(
            name=shift.name if shift else "unchanged",
            strength=shift.strength if shift else "",
            metrics={name: value for name, value in metrics.items() if name.partition(":")[0] in SHOWN},
            flagged=float(flagged.mean()),
            family=shift.family if shift else None,
            use=shift.use if shift else None,
        )

    unchanged = measure(None)
    results = [measure(shift) for shift in list_shifts(binary=info.positive is not None)]
    report = StressReport(
        run=info.name,
        data=dataset.folder.name or info.data,
        data_fingerprint=info.data_fingerprint,
        split="validation",
        images=len(rows),
        patients=len({row.patient for row in rows}),
        classes=info.classes,
        positive=info.positive,
        threshold=decisions.threshold,
        bootstrap=settings,
        unchanged=unchanged,
        shifts=results,
        summary=summarise_shifts(results),
        families=summarise_families(results),
    )
    write_text(run.folder / FILE, report.model_dump_json(indent=2) + "\n")
    return report


def read_stress_report(run: Run) -> StressReport | None:
    """Read `stress.json` of a run, None if there is none; raise an `InputError` if it is damaged."""
    path = run.folder / FILE
    try:
        return StressReport.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValidationError:
        raise InputError(f"{path}: damaged; run `pneumo evaluate {run.name} --stress` again, or delete it") from None


def summarise_shifts(results: Sequence[ShiftResult]) -> Summary:
    """Return mean and worst of the metrics over some changes."""

    def values(metric: str) -> dict[str, float]:
        estimates = {each.title: each.metrics[metric].value for each in results if metric in each.metrics}
        return {title: value for title, value in estimates.items() if value is not None}

    def mean(values: dict[str, float]) -> float | None:
        return float(np.mean(list(values.values()))) if values else None

    auroc, balanced = values("auroc"), values("balanced_accuracy")
    return Summary(
        changes=len(results),
        mean_auroc=mean(auroc),
        worst_auroc=min(auroc.values(), default=None),
        worst_shift=min(auroc, key=auroc.__getitem__, default=None),
        mean_sensitivity=mean(values("sensitivity")),
        mean_specificity=mean(values("specificity")),
        mean_balanced_accuracy=mean(balanced),
        worst_balanced_accuracy=min(balanced.values(), default=None),
    )


def summarise_families(results: Sequence[ShiftResult]) -> dict[str, Summary]:
    """Return the summary of each family, and as `report` that of the changes which only the report uses."""
    parts = {each.family: [other for other in results if other.family == each.family] for each in results}
    parts[Use.REPORT] = [each for each in results if each.use == Use.REPORT]
    return {name: summarise_shifts(part) for name, part in parts.items() if name and part}


def list_families(report: StressReport) -> list[list[str]]:
    """Return a row of `FAMILY_COLUMNS` for all changes, each family, and those only for the report."""
    rows = []
    for name, part in {"all changes": report.summary, **report.families}.items():
        values = (part.mean_auroc, part.worst_auroc, part.mean_sensitivity, part.mean_specificity)
        cells = ["-" if value is None else f"{value:.3f}" for value in values]
        rows.append([name, str(part.changes), *cells, part.worst_shift or "-"])
    return rows
