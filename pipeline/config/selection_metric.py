"""The metric that chooses the best epoch and ranks trials: one of Ludwig's, one under change, or a weighted mean."""

import re
from collections.abc import Collection

from pneumo.pipeline.config.suggestions import suggest

LOSSES = frozenset(
    {"loss", "binary_weighted_cross_entropy", "softmax_cross_entropy", "smoothed_binary_cross_entropy", "corn"}
)
"""Metrics that are minimised."""

STRESS_MEAN, STRESS_WORST, WORST_GROUP = OWN = ("stress.auroc", "stress.worst", "worst_group.auroc")
"""Metrics that pneumo measures on validation images at the end of an epoch: mean and lowest AUROC under the changes of
the stress test that are for selection, and the lowest AUROC of a subgroup or a pair of them."""

_SHARES = ("accuracy", "precision", "recall", "roc_auc", "specificity", *OWN)
BASE = "roc_auc"
"""Ludwig's metric that stands in its config instead of one that it does not know."""

_NUMBER, _NAME = r"\d+(?:\.\d+)?", r"[a-z][a-z0-9_]*(?:\.[a-z]+)?"
_TERM = rf"(?:{_NUMBER} *\*? *)?{_NAME}"
MEAN = rf"^{_TERM}(?: *\+ *{_TERM})+$"
"""Pattern of a weighted mean, such as `roc_auc + 2 stress.worst`."""


def read_weights(metric: str) -> dict[str, float]:
    """Return the weights of a weighted mean, which sum to 1; a metric alone has the weight 1."""
    if not re.fullmatch(MEAN, metric):
        return {metric: 1.0}
    found = [(name, float(number or 1)) for number, name in re.findall(rf"({_NUMBER})?[ *]*({_NAME})", metric)]
    total = sum(weight for _, weight in found)
    return {name: sum(weight for other, weight in found if other == name) / (total or 1) for name, _ in found}


def is_ludwigs(metric: str) -> bool:
    """Return whether Ludwig measures a metric itself: it is neither one of pneumo's nor a mean."""
    return read_weights(metric).keys() == {metric} - {*OWN}


def find_fault(metric: str, names: Collection[str], *, label_type: str, backend: str) -> str | None:
    """Return what is wrong with a metric for a label with Ludwig's metrics `names`, and the fix; None if nothing is."""
    if metric in names:
        return None
    weights, known = read_weights(metric), [*names, *OWN]
    if unknown := next((name for name in weights if name not in known), None):
        if re.search(r"[+*]| - ", unknown):
            return f"is {metric!r}; write the name of a metric, or a mean such as {BASE} + 2 {STRESS_WORST}"
        return f"is {metric!r}; {suggest(unknown, known)}"
    if others := [name for name in weights if name not in _SHARES]:
        return f"is {metric!r}: {others[0]} is no share and has no place in a mean; leave it out"
    if not all(weights.values()):
        return f"is {metric!r}: a weight is 0; leave that metric out"
    if label_type != "binary":
        return f"is {metric!r}, which is for a binary label; choose from {', '.join(names)}"
    if backend == "ray":
        return f"is {metric!r}, which is measured in one process; leave out backend: {{type: ray}}"
    return None
