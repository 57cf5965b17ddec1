"""The model card of a bundle (Mitchell et al., Model Cards for Model Reporting, 2019)."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pneumo.pipeline.config import document
from pneumo.pipeline.data.manifest import DatasetInfo
from pneumo.pipeline.evaluation.results import Estimate, Metrics, SplitResult, remarks, title
from pneumo.pipeline.export.int8.wording import describe_quantization
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.model.bundle import BundleInfo

if TYPE_CHECKING:
    from pneumo.pipeline.evaluation.stress.stress_test import StressReport

_QUALITY = ("auroc", "worst_group_auroc", "average_precision", "accuracy", "balanced_accuracy", "brier")
_OPERATING = ("sensitivity", "specificity", "ppv", "npv", "prevalence")
_CALIBRATION = ("ece_uncalibrated", "ece", "nll_uncalibrated", "nll")
_CERTAINTY = ("coverage", "uncertain", "accuracy_certain")
_SUBGROUP = ("auroc", "sensitivity", "specificity", "accuracy", "uncertain")
_WORST_SHIFTS = 8


def render_card(bundle: BundleInfo, data: DatasetInfo, run: Run) -> str:
    """`card.md`: what a model is for, what it was made from, how good it is and where it ends.

    Args:
        bundle: What is exported.
        data: The data set that it was trained on.
        run: Where it comes from: its config, and what `pneumo evaluate --stress` found, if it was run.

    Raises:
        InputError: The run's `stress.json` is damaged.
    """
    metrics = Metrics.model_validate(bundle.metrics)
    sections = {
        "Intended use": _use(bundle),
        "Data": _data(bundle, data),
        "Results": _results(metrics),
        "Operating point": _operating_point(bundle, metrics),
        "Calibration": _calibration(bundle, metrics),
        "Uncertain answers": _uncertain(bundle, metrics),
        "Subgroups": _subgroups(metrics),
        "Known shift": _shift(bundle, run),
        "Limits": _limits(bundle),
        "Training": _training(bundle, run),
        "Export": [
            f"ONNX Runtime and Ludwig agree to {bundle.parity.max_probability_difference:.1e} in probability on "
            f"{bundle.parity.images} images.",
            *(describe_quantization(bundle.quantization) if bundle.quantization else []),
        ],
    }
    lines = [
        f"# {bundle.name} {bundle.version}",
        "",
        "**Research software, not a medical device.** Not for diagnosis or treatment of anyone.",
    ]
    for name, content in sections.items():
        lines += ["", f"## {name}", "", *content]
    return "\n".join(lines) + "\n"


def _use(bundle: BundleInfo) -> list[str]:
    task = ", ".join(bundle.classes)
    if bundle.positive_class is not None:
        other = next(name for name in bundle.classes if name != bundle.positive_class)
        task = f"{bundle.positive_class} from {other}"
    return [
        f"Tells {task} in frontal chest radiographs like those it was trained on, for research. Not for other views,",
        "body parts or modalities, not for findings that it was not trained on, and not without a person who checks.",
    ]


def _data(bundle: BundleInfo, data: DatasetInfo) -> list[str]:
    made = data.split
    notes = made.get("notes") or []
    return [
        f"Source `{data.source}`, fingerprint `{bundle.data_fingerprint}`, prepared at {data.size} pixels "
        f"({data.fit.value}), 8-bit gray.",
        f"Splits: {made.get('method', 'unknown')}, kept together by {made.get('grouped_by', 'nothing known')}, "
        f"seed {made.get('seed', 'unknown')}. Weights come from train, everything that was decided from validation.",
        *(f"Note: {note}." for note in notes),
        "",
        *_table(
            ["split", *data.classes, "patients"],
            (
                [split, *(str(of.get(name, 0)) for name in data.classes), str(data.patients.get(split, 0))]
                for split, of in data.counts.items()
            ),
        ),
    ]


def _results(metrics: Metrics) -> list[str]:
    return [
        f"95 % intervals, bootstrapped by patient ({metrics.bootstrap.resamples:,} resamples); where all resamples "
        "agree, as with a rate of 1, exact ones for the number of patients.",
        "",
        *_figures(metrics, _QUALITY),
        *_noted(metrics),
    ]


def _noted(metrics: Metrics) -> list[str]:
    notes = [f"- {remark}" for remark in remarks(metrics)]
    return ["", "To be noted:", "", *notes] if notes else []


def _operating_point(bundle: BundleInfo, metrics: Metrics) -> list[str]:
    if bundle.positive_class is None:
        return ["The most probable class is the answer.", "", *_figures(metrics, _of_classes(bundle, "sensitivity"))]
    equivalent = metrics.decisions.equivalent
    others = (
        f" Thresholds from {equivalent[0]:.3f} to {equivalent[1]:.3f} did as well there within two standard errors."
        if equivalent
        else ""
    )
    return [
        f"{bundle.positive_class} from a probability of {bundle.thresholds['default']:.3f} on; policy: "
        f"`{bundle.policy}`, on validation.{others}",
        "Predictive values are those at the prevalence of the split; where fewer images are positive, the positive one",
        "is lower.",
        "",
        *_figures(metrics, _OPERATING),
    ]


def _calibration(bundle: BundleInfo, metrics: Metrics) -> list[str]:
    return [f"Temperature {bundle.temperature:.3f}, fitted on validation.", "", *_figures(metrics, _CALIBRATION)]


def _uncertain(bundle: BundleInfo, metrics: Metrics) -> list[str]:
    return [
        f"An answer is `uncertain` where the conformal set at {bundle.conformal.level:.0%} is not that answer alone. "
        "The coverage is one for",
        "all images like those of validation, whichever class or subgroup they are of.",
        "",
        *_figures(metrics, (*_CERTAINTY, *_of_classes(bundle, "coverage"))),
    ]


def _of_classes(bundle: BundleInfo, metric: str) -> tuple[str, ...]:
    return tuple(f"{metric}:{name}" for name in bundle.classes)


def _subgroups(metrics: Metrics) -> list[str]:
    lines: list[str] = []
    for split, result in _held_out(metrics).items():
        if not result.subgroups:
            continue
        shown = [name for name in _SUBGROUP if any(name in part.metrics for part in result.subgroups)]
        rows = (
            [
                f"{part.group}: {part.value}",
                f"{part.images} ({part.patients})",
                *(_cell(part.metrics.get(name)) for name in shown),
            ]
            for part in result.subgroups
        )
        worst = f" The worst AUROC is that of {result.worst_group}." if result.worst_group else ""
        lines += [f"On {split}.{worst}", "", *_table(["", "images (patients)", *map(title, shown)], rows), ""]
    if not lines:
        return ["The data set names no subgroups, so that nothing is known about any."]
    return [*lines, "The AUROC of a subgroup of one class is against all images of the other class."]


def _shift(bundle: BundleInfo, run: Run) -> list[str]:
    lines = [
        "The figures above flatter: validation and test images come from the same source as the training images, and",
        "hardly tell a robust model from a brittle one. On images of other hospitals, detectors, years or ages expect",
        f"less{', and choose the threshold anew on images from there' if bundle.positive_class else ''}.",
    ]
    report = _stress(run)
    if report is None:
        return [*lines, "", "No stress test was run (`pneumo evaluate RUN --stress`)."]
    shifts = [shift for shift in report.shifts if shift.metrics["auroc"].value is not None]
    worst = sorted(shifts, key=lambda shift: shift.metrics["auroc"].value or 0)[:_WORST_SHIFTS]
    metrics = [name for name in ("auroc", "sensitivity", "specificity") if name in report.unchanged.metrics]
    flagged = ["flagged"] if any(shift.flagged is not None for shift in shifts) else []
    return [
        *lines,
        "",
        f"{report.images} {report.split} images, changed as other scanners and exports would change them: the "
        f"{len(worst)} worst of {len(report.shifts)} changes{_at(report.threshold, bundle)}.",
        "",
        *_table(
            ["change", *map(title, metrics), *flagged],
            (
                [
                    shift.title if shift is not report.unchanged else "none",
                    *(_cell(shift.metrics.get(name)) for name in metrics),
                    *(["-" if shift.flagged is None else f"{shift.flagged:.1%}"] if flagged else []),
                ]
                for shift in (report.unchanged, *worst)
            ),
        ),
        *_crossed(report),
    ]


def _crossed(report: "StressReport") -> list[str]:
    mean, worst = report.summary.mean_crossed_auroc, report.summary.worst_crossed_auroc
    if mean is None or worst is None:
        return []
    return [
        "",
        f"Where one class only is changed, as when it comes from another scanner, the AUROC is {mean:.3f} in the mean "
        f"and {worst:.3f} at worst ({report.summary.worst_crossed_shift}).",
    ]


def _at(threshold: float | None, bundle: BundleInfo) -> str:
    if threshold is None:
        return ""
    same = threshold == bundle.thresholds.get("default")
    return ", at the threshold of this card" if same else f", at a threshold of {threshold:.3f}, not that of this card"


def _stress(run: Run) -> "StressReport | None":
    from pydantic import ValidationError

    from pneumo.pipeline.evaluation.stress import stress_test

    path = run.folder / stress_test.FILE
    if not path.is_file():
        return None
    try:
        return stress_test.StressReport.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError:
        raise InputError(f"{path}: damaged; run `pneumo evaluate {run.name} --stress` again, or delete it") from None


def _limits(bundle: BundleInfo) -> list[str]:
    return [
        "Images unlike the training images are flagged as out of distribution by a score, above a limit of "
        f"{bundle.outlier.limit:.4g} that {bundle.outlier.quantile:.0%}",
        "of validation images pass. That does not catch all of them, and a flagged image still gets an answer.",
        "Labels are those of the data set, with the mistakes they may hold. No clinical data enter.",
    ]


def _training(bundle: BundleInfo, run: Run) -> list[str]:
    config = document.read_document(run.config)
    image = config.get(("input_features", 0)) or {}
    encoder = image.get("encoder") or {}
    steps = image.get("augmentation") or []
    names = [str(step.get("type")) for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    trainer = config.get(("trainer",)) or {}
    size = bundle.preparation
    return [
        f"Config `{bundle.name}` (in full in `config.yaml`), run `{run.name}`, seed {bundle.provenance.get('seed')}.",
        "",
        f"- encoder: {encoder.get('type', 'stacked_cnn')}{_details(encoder)}",
        f"- input: {size.height} x {size.width} pixels, {size.channels} channel{'s' if size.channels > 1 else ''}",
        f"- augmentation: {', '.join(names) or 'none'}",
        f"- epochs: {trainer.get('epochs', 'Ludwig default')}, batch size {trainer.get('batch_size')}",
    ]


def _details(encoder: dict[str, Any]) -> str:
    plain = {key: value for key, value in encoder.items() if key != "type" and isinstance(value, str | int | float)}
    told = ", ".join(
        f"{key} {str(value).lower() if isinstance(value, bool) else value}" for key, value in plain.items()
    )
    return f" ({told})" if told else ""


def _held_out(metrics: Metrics) -> dict[str, SplitResult]:
    return {name: part for name, part in metrics.splits.items() if name != "train"}


def _figures(metrics: Metrics, names: Iterable[str]) -> list[str]:
    splits = _held_out(metrics)
    shown = [name for name in names if any(name in part.metrics for part in splits.values())]
    rows = ([title(name), *(_cell(part.metrics.get(name)) for part in splits.values())] for name in shown)
    return _table(["", *splits], rows)


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(header), line("---" for _ in header), *map(line, rows)]


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.value is None:
        return "undefined"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f}"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
