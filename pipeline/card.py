"""The model card of a bundle (Mitchell et al., Model Cards for Model Reporting, 2019)."""

from pipeline.data.manifest import DatasetInfo
from serving.bundle import BundleInfo

_SHOWN = ("auroc", "average_precision", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece")


def card(bundle: BundleInfo, data: DatasetInfo) -> str:
    """`card.md`: what a model is for, what it was made from, how good it is and where it ends."""
    lines = [
        f"# {bundle.name} {bundle.version}",
        "",
        "**Research software, not a medical device.** Not for diagnosis or treatment of anyone.",
        "",
        "## Intended use",
        "",
        f"Tells {_task(bundle)} in frontal chest radiographs like those it was trained on, for research.",
        "",
        "## Data",
        "",
        f"Source `{data.source}`, fingerprint `{bundle.data_fingerprint[:16]}`, prepared at {data.size} pixels "
        f"({data.fit.value}), 8-bit gray. Images and patients by split:",
        "",
        f"| split | {' | '.join(data.classes)} | patients |",
        f"| --- | {' | '.join('---' for _ in data.classes)} | --- |",
        *(
            f"| {split} | {' | '.join(str(of.get(name, 0)) for name in data.classes)} | {data.patients.get(split, 0)} |"
            for split, of in data.counts.items()
        ),
        "",
        "## Results",
        "",
        "95 % intervals, bootstrapped by patient.",
        "",
        *_results(bundle),
        "",
        "## Decision",
        "",
        f"Temperature {bundle.temperature:.3f}; "
        + (
            f"{bundle.positive_class} from a probability of {bundle.thresholds['default']:.3f} on ({bundle.policy}); "
            if bundle.positive_class
            else "the most probable class; "
        )
        + f"conformal sets at {bundle.conformal.level:.0%}. All fitted on the validation split.",
        "",
        "## Limits",
        "",
        "Held-out images come from the same source as the training images: expect less on images of other hospitals,",
        "detectors, ages and projections. Images unlike the training images are flagged by a score on the embedding",
        f"(the limit lets {bundle.outlier.quantile:.0%} of validation images pass), which does not catch all of them.",
        "",
        "## Export",
        "",
        f"ONNX Runtime and Ludwig agree to {bundle.parity.max_probability_difference:.1e} in probability on "
        f"{bundle.parity.images} images. Run `{bundle.provenance.get('run')}`, seed {bundle.provenance.get('seed')}.",
    ]
    return "\n".join(lines) + "\n"


def _task(bundle: BundleInfo) -> str:
    if bundle.positive_class is None:
        return ", ".join(bundle.classes)
    return f"{bundle.positive_class} from {next(name for name in bundle.classes if name != bundle.positive_class)}"


def _results(bundle: BundleInfo) -> list[str]:
    splits = {name: part for name, part in bundle.metrics.get("splits", {}).items() if name != "train"}
    shown = [metric for metric in _SHOWN if any(metric in part["metrics"] for part in splits.values())]
    lines = [f"| | {' | '.join(splits)} |", f"| --- | {' | '.join('---' for _ in splits)} |"]
    for metric in shown:
        cells = [_cell(part["metrics"].get(metric, {})) for part in splits.values()]
        lines.append(f"| {metric.replace('_', ' ')} | {' | '.join(cells)} |")
    return lines


def _cell(estimate: dict[str, float | None]) -> str:
    value, low, high = (estimate.get(key) for key in ("value", "low", "high"))
    if value is None:
        return "undefined"
    return f"{value:.3f}" if low is None or high is None else f"{value:.3f} ({low:.3f} to {high:.3f})"
