"""The model card of a bundle (Mitchell et al., Model Cards for Model Reporting, 2019)."""

from collections.abc import Iterable

from pneumo.pipeline.config import document
from pneumo.pipeline.data.manifest import DatasetInfo
from pneumo.pipeline.data.shortcuts import EXPLANATION, describe_shortcuts
from pneumo.pipeline.evaluation.results import Estimate, Metrics, list_remarks, title
from pneumo.pipeline.evaluation.stress.coverage import describe_lowest_coverage
from pneumo.pipeline.evaluation.stress.stress_test import FAMILY_COLUMNS, REPORT_ONLY, list_families, read_stress_report
from pneumo.pipeline.export.int8.wording import describe_quantization
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.figures import format_estimate
from pneumo.serving.contracts.population import describe_training
from pneumo.serving.model.bundle import BundleInfo

_QUALITY = ("auroc", "worst_group_auroc", "average_precision", "accuracy", "balanced_accuracy", "brier")
_OPERATING = ("sensitivity", "specificity", "ppv", "npv", "prevalence")
_CALIBRATION = ("ece_uncalibrated", "ece", "nll_uncalibrated", "nll")
_UNCERTAINTY = ("coverage", "uncertain", "accuracy_certain")
_SUBGROUP = ("auroc", "sensitivity", "specificity", "accuracy", "coverage", "uncertain")
_WORST_SHIFTS = 8


def render_card(bundle: BundleInfo, data: DatasetInfo, run: Run) -> str:
    """Return `card.md` of a bundle from its metrics, its data set, and the config and stress test of its run.

    Raises:
        InputError: The run's `stress.json` is damaged.
    """
    metrics = Metrics.model_validate(bundle.metrics)
    sections = {
        "Intended use": _intended_use(bundle),
        "Population": _population(bundle),
        "Data": _data(bundle, data),
        "Shortcuts": [EXPLANATION, "", *(f"- {text}" for text in describe_shortcuts(data.shortcuts))],
        "Results": _results(metrics),
        "Operating point": _operating_point(bundle, metrics),
        "Calibration": [
            f"Temperature {bundle.temperature:.3f}, fitted on {metrics.decisions.fitted_on}.",
            "",
            *_metric_table(metrics, _CALIBRATION),
        ],
        "Uncertain images": _uncertain(bundle, metrics),
        "Subgroups": _subgroups(metrics),
        "Distribution shift": _shift(bundle, run),
        "Limitations": [
            "Images unlike the training images are flagged as out-of-distribution: their score is above a limit of "
            f"{bundle.outlier.limit:.4g}, which {bundle.outlier.quantile:.0%}",
            "of validation images pass. Not all of them are flagged, and a flagged image still gets a prediction.",
            "Labels are those of the data set and may hold mistakes. No clinical data are used.",
        ],
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


def _intended_use(bundle: BundleInfo) -> list[str]:
    task = ", ".join(bundle.classes)
    if bundle.positive_class is not None:
        other = next(name for name in bundle.classes if name != bundle.positive_class)
        task = f"{bundle.positive_class} from {other}"
    return [
        f"Research on chest radiographs like those it was trained on: it tells {task}, and was "
        f"{describe_training(bundle.population)}.",
        "Not for other people, views, body parts or modalities, not for findings that it was not trained on, and not "
        "without a person who checks.",
    ]


def _population(bundle: BundleInfo) -> list[str]:
    if bundle.population is None:
        return ["Not stated (`pneumo data import --population FILE` states it): it cannot be said for whom this holds."]
    return _table(["what", "as the data set states it"], map(list, bundle.population.list_facts()))


def _data(bundle: BundleInfo, data: DatasetInfo) -> list[str]:
    rows = (
        [split, *(str(counts.get(name, 0)) for name in data.classes), str(data.patients.get(split, 0))]
        for split, counts in data.counts.items()
    )
    return [
        f"Source `{data.source}`, fingerprint `{bundle.data_fingerprint}`, prepared at {data.size} pixels "
        f"({data.fit.value}), 8-bit gray.",
        f"Splits: {data.split.get('method', 'unknown')}, grouped by {data.split.get('grouped_by', 'unknown')}, "
        f"seed {data.split.get('seed', 'unknown')}. Weights come from train, all decisions from validation.",
        *(f"Note: {note}." for note in data.split.get("notes") or []),
        "",
        *_table(["split", *data.classes, "patients"], rows),
    ]


def _results(metrics: Metrics) -> list[str]:
    notes = [f"- {remark}" for remark in list_remarks(metrics)]
    return [
        f"95% confidence intervals by a bootstrap of patients ({metrics.bootstrap.resamples:,} resamples); if all "
        "resamples agree, as with a rate of 1, exact ones for the number of patients.",
        "",
        *_metric_table(metrics, _QUALITY),
        *(["", "Notes:", "", *notes] if notes else []),
    ]


def _operating_point(bundle: BundleInfo, metrics: Metrics) -> list[str]:
    if bundle.positive_class is None:
        rates = [f"sensitivity:{name}" for name in bundle.classes]
        return ["The most probable class is the prediction.", "", *_metric_table(metrics, rates)]
    threshold, equivalent = bundle.thresholds["default"], metrics.decisions.equivalent
    others = ""
    if equivalent:
        low, high = (f"{100 * each:.4g}%" for each in equivalent)
        others = f" Thresholds from {low} to {high} did as well there within two standard errors."
    return [
        f"Called {bundle.positive_class} at {100 * threshold:.4g}% or above; policy: `{bundle.policy}`, fitted on "
        f"{metrics.decisions.fitted_on}." + others,
        "Predictive values hold for the prevalence of the split; if fewer images are positive, the positive predictive",
        "value is lower.",
        "",
        *_metric_table(metrics, _OPERATING),
    ]


def _uncertain(bundle: BundleInfo, metrics: Metrics) -> list[str]:
    limits = metrics.decisions.conformal_limit
    own = "Each class has a limit of its own" if len(limits) > 1 else "One limit holds for all classes"
    return [
        "An image is `uncertain` unless its prediction set is exactly the predicted class; an empty set is uncertain.",
        f"{own}, fitted on {metrics.decisions.fitted_on} for a coverage of {bundle.conformal.level:g}.",
        "Expect no more of a class than was measured on test, and less on images of another place or kind.",
        "",
        *_metric_table(metrics, (*_UNCERTAINTY, *(f"coverage:{name}" for name in bundle.classes))),
    ]


def _subgroups(metrics: Metrics) -> list[str]:
    lines: list[str] = []
    for split, result in metrics.splits.items():
        if split == "train" or not result.subgroups:
            continue
        shown = [name for name in _SUBGROUP if any(name in part.metrics for part in result.subgroups)]
        rows = []
        for part in result.subgroups:
            cells = (_cell(part.metrics.get(name)) for name in shown)
            rows.append([f"{part.group}: {part.value}", f"{part.images} ({part.patients})", *cells])
        worst = f" The worst AUROC is that of {result.worst_group}." if result.worst_group else ""
        lines += [f"On {split}.{worst}", "", *_table(["subgroup", "images (patients)", *map(title, shown)], rows), ""]
    if not lines:
        return ["The data set names no subgroups, so that nothing is known about any."]
    return [*lines, "The AUROC of a subgroup of one class is against all images of the other class."]


def _shift(bundle: BundleInfo, run: Run) -> list[str]:
    lines = [
        "The metrics above are too good for use elsewhere: validation and test images come from the source of the",
        "training images, and hardly separate a robust model from a brittle one. On images of other hospitals,",
        "detectors, years or ages expect worse"
        + (", and fit the decisions to images from there (`pneumo recalibrate`)." if bundle.positive_class else "."),
        "",
    ]
    report = read_stress_report(run)
    if report is None:
        return [*lines, "No stress test was run (`pneumo evaluate RUN --stress`)."]
    shifts = [shift for shift in report.shifts if shift.metrics["auroc"].value is not None]
    worst = sorted(shifts, key=lambda shift: shift.metrics["auroc"].value or 0)[:_WORST_SHIFTS]
    shown = ("auroc", "sensitivity", "specificity", *(f"coverage:{name}" for name in report.classes))
    metrics = [name for name in shown if name in report.unchanged.metrics]
    at = ""
    if report.threshold is not None and report.threshold == bundle.thresholds.get("default"):
        at = ", at the decision threshold of this card"
    elif report.threshold is not None:
        at = f", at a decision threshold of {100 * report.threshold:.4g}%, not that of this card"
    rows = (
        [
            "none" if shift is report.unchanged else shift.title,
            shift.family or "-",
            *(_cell(shift.metrics.get(name)) for name in metrics),
            "-" if shift.flagged is None else f"{shift.flagged:.1%}",
        ]
        for shift in (report.unchanged, *worst)
    )
    lines += [
        f"{report.images} {report.split} images, changed as other scanners and exports would change them: the "
        f"{len(worst)} worst of {len(report.shifts)} changes{at}.",
        "",
        *_table(["change", "family", *map(title, metrics), "out-of-distribution"], rows),
    ]
    lines += ["", *_table(list(FAMILY_COLUMNS), list_families(report)), "", REPORT_ONLY]
    if coverage := describe_lowest_coverage(report):
        lines += ["", coverage]
    return lines


def _training(bundle: BundleInfo, run: Run) -> list[str]:
    config = document.read_document(run.config)
    image = config.get(("input_features", 0)) or {}
    encoder = image.get("encoder") or {}
    steps = image.get("augmentation") or []
    names = [str(step.get("type")) for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
    trainer = config.get(("trainer",)) or {}
    options = ", ".join(
        f"{key} {str(value).lower() if isinstance(value, bool) else value}"
        for key, value in encoder.items()
        if key != "type" and isinstance(value, str | int | float)
    )
    size = bundle.preparation
    return [
        f"Config `{bundle.name}` (in full in `config.yaml`), run `{run.name}`, seed {bundle.provenance.get('seed')}.",
        "",
        f"- encoder: {encoder.get('type', 'stacked_cnn')}{f' ({options})' if options else ''}",
        f"- input: {size.height} x {size.width} pixels, {size.channels} channel{'s' if size.channels > 1 else ''}",
        f"- augmentation: {', '.join(names) or 'none'}",
        f"- epochs: {trainer.get('epochs', 'Ludwig default')}, batch size {trainer.get('batch_size')}",
    ]


def _metric_table(metrics: Metrics, names: Iterable[str]) -> list[str]:
    """Return a table of metrics by split; train is left out."""
    splits = {name: part.metrics for name, part in metrics.splits.items() if name != "train"}
    rows = (
        [title(name), *(_cell(part.get(name)) for part in splits.values())]
        for name in names
        if any(name in part for part in splits.values())
    )
    return _table(["metric", *splits], rows)


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    return [line(header), line("---" for _ in header), *map(line, rows)]


def _cell(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "undefined" if estimate else "-"
    return format_estimate(estimate)
