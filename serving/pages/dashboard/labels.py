"""Names of columns, verdicts and metrics for readers of the dashboard, and formats of their values."""

from pneumo.serving.drift.verdict import Verdict

METRICS = {"accuracy": "Accuracy", "sensitivity": "Sensitivity", "specificity": "Specificity", "auroc": "AUROC"}

VERDICTS = {
    Verdict.OK: "No drift",
    Verdict.WARNING: "Warning",
    Verdict.DRIFT: "Drift",
    Verdict.TOO_FEW: "Too few images",
}

_COLUMNS = {
    "mean": "Brightness, mean gray level",
    "contrast": "Contrast, gray levels",
    "entropy": "Entropy, bits",
    "sharpness": "Sharpness",
    "noise": "Noise, gray levels",
    "black": "Black pixels",
    "white": "White pixels",
    "aspect": "Width over height",
    "width": "Width, pixels",
    "height": "Height, pixels",
    "outlier_score": "Out-of-distribution score",
    "out_of_distribution": "Out-of-distribution images",
    "uncertain": "Uncertain predictions",
    "beyond_reference": "Score above every reference image",
    "embedding": "Network embedding",
    "probability": "Probability of {}",
    "decision": "Called {}",
}
_SHARES = frozenset(
    {"black", "white", "probability", "decision", "out_of_distribution", "uncertain", "beyond_reference"}
)


def format_column(name: str, positive_class: str | None) -> str:
    """Name a column in words."""
    kind, _, label = name.partition(":")
    return _COLUMNS.get(kind, kind).format(label or positive_class or "the predicted class")


def is_share(name: str) -> bool:
    """Return whether the values of a column are shares, shown in percent."""
    return name.partition(":")[0] in _SHARES


def format_number(value: float, name: str) -> str:
    """Format a value of a column."""
    return f"{value:.1%}" if is_share(name) else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
