"""What columns, verdicts and metrics are called where people read them."""

from pneumo.serving.drift.verdict import Verdict

METRICS = {
    "accuracy": "Accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "auroc": "AUROC",
}

VERDICTS = {
    Verdict.OK: "Like the reference",
    Verdict.WARNING: "Warning",
    Verdict.DRIFT: "Drift",
    Verdict.TOO_FEW: "Too few images",
}

TESTS = {
    "anderson": "Anderson-Darling",
    "fisher": "Fisher's exact",
    "all_inside": "oddest images",
    "mmd": "mean discrepancy",
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
    "outlier_score": "Strangeness to the model",
    "out_of_distribution": "Out of distribution",
    "uncertain": "Uncertain answers",
    "beyond_reference": "Stranger than any of the reference",
    "embedding": "What the network sees",
}
_SHARES = frozenset(
    {"black", "white", "probability", "decision", "out_of_distribution", "uncertain", "beyond_reference"}
)


def format_column(name: str, positive_class: str | None) -> str:
    """Name a column in words."""
    about = positive_class or "the class said"
    if name == "probability":
        return f"Probability of {about}"
    if name == "decision":
        return f"Called {about}"
    return _COLUMNS.get(name, name)


def is_share(name: str) -> bool:
    """Whether a column is told in percent."""
    return name in _SHARES


def format_number(value: float, name: str) -> str:
    """Format a value of a column with its digits."""
    return format_share(value) if is_share(name) else (f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}")


def format_share(value: float) -> str:
    """Format a share in percent."""
    return f"{value:.1%}".replace("%", "\N{NO-BREAK SPACE}%")
