"""Rules about the classes of a data set."""

from collections.abc import Iterator, Sequence

from pneumo.pipeline.config.document import Document, parse_key_path
from pneumo.pipeline.config.problems import Problem
from pneumo.pipeline.config.rules.component_rules import LABEL
from pneumo.pipeline.config.suggestions import find_near, suggest


def check_classes(document: Document, classes: Sequence[str]) -> Iterator[Problem]:
    """Require a label feature with the classes of a data set: two for a binary label, and a weight for all or none."""
    kind, count, path = f"{LABEL}.type", len(classes), f"{LABEL}.preprocessing.fallback_true_label"
    positive = document.get(path)
    if document.get(kind) == "binary" and count != 2:
        yield document.problem(kind, f"a binary label has two classes, the data set has {count}: use type: category")
    elif document.get(kind) == "binary" and positive not in (None, *classes):
        problem = f"the positive class {positive!r} is not in the data set, which has {' and '.join(classes)}"
        yield document.problem(path, problem)
    weights, section = document.get(f"{LABEL}.loss.class_weights"), parse_key_path(f"{LABEL}.loss.class_weights")
    if isinstance(weights, dict):
        unknown = [name for name in weights if name not in classes]
        for name in unknown:
            yield document.wrong((*section, name), f"is no class of the data set; {suggest(name, classes)}")
        meant = {find_near(name, classes) for name in unknown}
        if missing := [name for name in classes if name not in weights and name not in meant]:
            yield document.wrong(section, f"lacks {', '.join(missing)}; give every class of the data set a weight")
