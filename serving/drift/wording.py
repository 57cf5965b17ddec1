"""What a difference between window and reference means, for people who take radiographs."""

from collections.abc import Sequence

from pneumo.serving.drift.verdict import ColumnResult, Verdict

_UP_DOWN = {
    "mean": ("brighter", "darker"),
    "contrast": ("of more contrast", "flatter"),
    "entropy": ("of more gray levels", "of fewer gray levels"),
    "sharpness": ("sharper", "blurrier"),
    "noise": ("noisier", "smoother"),
    "black": ("blacker at the edges", "less black at the edges"),
    "white": ("more burnt out", "less burnt out"),
    "aspect": ("wider in shape", "taller in shape"),
    "width": ("wider in pixels", "narrower in pixels"),
    "height": ("taller in pixels", "lower in pixels"),
    "outlier_score": ("stranger to the model", "more familiar to the model"),
}
"""An image with more of it, and with less."""

_CAUSES = (
    ({"mean", "contrast", "entropy", "white"}, "exposure, or a new detector?"),
    ({"sharpness"}, "another detector, resizing or compression?"),
    ({"noise"}, "another dose, or a filter that removes noise?"),
    ({"black", "aspect"}, "another crop or border?"),
    ({"width", "height"}, "another source, or resized on the way?"),
    (
        {"outlier_score", "embedding", "out_of_distribution", "beyond_reference"},
        "other views, other devices, or no chest X-rays among them?",
    ),
    ({"probability", "decision", "uncertain"}, "other patients, or a change that the model reacts to?"),
)


def describe_column(name: str, *, rises: bool, positive_class: str | None) -> str:
    """Put the difference of one column in words.

    Args:
        name: Of the column.
        rises: Whether the window has more of it.
        positive_class: What a decision is about.
    """
    positive = positive_class or "the class said"
    if name == "decision":
        return f"{positive} is said {'more' if rises else 'less'} often"
    if name == "probability":
        return f"the probability of {positive} is {'higher' if rises else 'lower'}"
    if name == "uncertain":
        return f"{'more' if rises else 'fewer'} answers are uncertain"
    if name == "out_of_distribution":
        return f"{'more' if rises else 'fewer'} images are unlike those of training"
    if name == "beyond_reference":
        return "some images are stranger to the model than any of the reference"
    if name == "embedding":
        return "the network sees other images"
    return f"images are {_UP_DOWN[name][0 if rises else 1]}"


def write_summary(verdict: Verdict, top: Sequence[ColumnResult], images: int) -> str:
    """Write a verdict with its strongest columns in one sentence."""
    if verdict is Verdict.TOO_FEW:
        return f"{images} images are too few to say anything"
    if verdict is Verdict.OK or not top:
        return f"the {images} images look like the reference"
    of_images = [column.words.removeprefix("images are ") for column in top if _is_of_images(column)]  # type: ignore[union-attr]
    others = [column.words for column in top if column.words and not _is_of_images(column)]
    parts = [f"images are {_listed(of_images)} than the reference"] if of_images else []
    told = "; ".join([*parts, *(str(words) for words in others)])
    return f"{told}: {_cause(top[0].name)}"


def _is_of_images(column: ColumnResult) -> bool:
    return bool(column.words and column.words.startswith("images are "))


def _cause(name: str) -> str:
    return next(words for names, words in _CAUSES if name in names)


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]
