"""What a wrong word or number of a config probably means."""

import difflib
import functools
import math
import re
from collections.abc import Collection, Iterable

from pneumo.serving.contracts.yaml_text import parse_yaml

_SYNONYMS = {
    "learning_rate": "lr eta step_size",
    "batch_size": "bs batch minibatch_size",
    "epochs": "n_epochs num_epochs max_epochs nb_epochs",
    "weight_decay": "wd l2 l2_regularization",
    "early_stop": "patience early_stopping_patience",
    "learning_rate_scheduler": "scheduler schedule lr_schedule lr_scheduler",
    "roc_auc": "auc auroc",
    "accuracy": "acc",
    "recall": "sensitivity tpr",
    "specificity": "tnr",
    "precision": "ppv",
    "binary_weighted_cross_entropy": "bce binary_cross_entropy log_loss",
    "softmax_cross_entropy": "ce cross_entropy log_loss",
    "num_channels": "channels in_channels",
    "dropout": "drop_rate dropout_rate p",
    "maximize": "max higher",
    "minimize": "min lower",
    "fallback_true_label": "positive_class pos_label",
}
"""Other words for keys and values, as other libraries use them."""


def find_same(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is a word with its parts in any order (`auc_roc`), or a synonym of it."""
    meant = {name for name, others in _SYNONYMS.items() if _keys(word) & set().union(*map(_keys, others.split()))}
    return next((choice for choice in choices if choice in meant or _keys(word) & _keys(choice)), None)


def find_near(word: str, choices: Collection[str]) -> str | None:
    """Return the choice that a word probably means: the same, or one with nearly the same letters."""
    lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word[:100].lower(), lower, n=1)
    return find_same(word, choices) or (lower[close[0]] if close else None)


def suggest(word: object, choices: Collection[str]) -> str:
    """Return the fix for a wrong word: the choice that it probably means, or all choices."""
    near = find_near(str(word), choices)
    return f"did you mean {near!r}?" if near else f"choose from {', '.join(choices)}"


def number_hint(value: object, whole: bool = False) -> str:
    """Return how to write a number that is text in YAML 1.1, such as `1e-3` or `"25"`; empty for any other value."""
    try:
        number = float(value) if isinstance(value, str | float) else math.nan
    except ValueError:
        return ""
    if not math.isfinite(number) or (whole and not number.is_integer()):
        return ""
    if whole:
        return f" (write {number:.0f})"
    if not isinstance(parse_yaml(str(value)), str):
        return f" (the quotes make it text; write {str(value).strip()})"
    mantissa, _, exponent = f"{number:e}".partition("e")
    return f" (YAML reads it as text; write {float(mantissa)}e{int(exponent):+d})"


@functools.cache
def _keys(word: str) -> frozenset[str]:
    """Return a word without case and separators, with its parts as they are and sorted: `auc_roc` is `roc_auc`."""
    parts = re.findall(r"[a-z0-9]+", word.lower())
    return frozenset({"".join(parts), "".join(sorted(parts))} - {""})
