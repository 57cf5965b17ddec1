"""Signs that labels or patients are not what they seem, found without looking at a pixel; for import and audit."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from pneumo.pipeline.data.manifest import Split

_FEW, _SMALL_SHARE = 5, 0.05
_SHARE_OF_USUAL = 0.2


def find_rare_classes(images: Iterable[tuple[Split | None, str, str]]) -> list[str]:
    """Return a sentence for each class that is nearly absent from a split; one that a split lacks is not named.

    `images` are split, label and patient of each. Nearly absent: fewer than 5 images and 5% of the split, or a fifth of
    the share that the class has elsewhere.
    """
    counts: defaultdict[Split, Counter[str]] = defaultdict(Counter)
    totals: Counter[str] = Counter()
    for split, label, _ in images:
        if split is not None:
            counts[split][label] += 1
            totals[label] += 1
    sentences = []
    for split, labels in sorted(counts.items()):
        whole = labels.total()
        for label, count in sorted(labels.items()):
            usual = totals[label] * whole / totals.total()
            if (count < _FEW and count < _SMALL_SHARE * whole) or count < _SHARE_OF_USUAL * usual:
                sentences.append(
                    f"class {label!r} is nearly absent from the {split.name.lower()} split: "
                    f"{count} of {whole} images; its metrics there mean little"
                )
    return sentences


def find_alike_patients(images: Iterable[tuple[Split | None, str, str]]) -> list[str]:
    """Return a sentence if the patients cannot be patients: one for most images, or one for each class."""
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for _, label, patient in images:
        labels[patient][label] += 1
    sizes = Counter({patient: own.total() for patient, own in labels.items()})
    total, classes = sizes.total(), {label for own in labels.values() for label in own}
    most = max(sizes.values(), default=0)
    if most > 1 and most > total / 2:
        return [f"one patient has {most} of {total} images: a patient's own ID, or one value for everybody?"]
    if len(sizes) == len(classes) < total and all(len(own) == 1 for own in labels.values()):
        return [f"the {len(sizes)} patients are the {len(classes)} classes: the IDs may be labels"]
    return []
