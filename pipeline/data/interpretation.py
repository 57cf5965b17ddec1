"""The meaning that an import gives to a source, before it reads an image."""

from pneumo.serving.contracts.models import FrozenModel


class Interpretation(FrozenModel):
    """Where the labels, patients and splits of a source come from, and what is not certain about it.

    Attributes:
        layout: `table`, `arrays`, or the levels of folders from the top: `split/class`.
        example: Name of the first image.
        classes: Images by class.
        labels_from: Origin of the labels.
        patients_from: How many images got their patient from which place, and the number of patients.
        splits_from: Origin of the splits.
        ignored: Files that are no images of the set, by reason.
        notes: What was merged, renamed, resolved or left out.
        ambiguities: What the source leaves open, each with the options that settle it. An import stops if there is any.
    """

    layout: str
    example: str
    classes: dict[str, int]
    labels_from: str
    patients_from: str
    splits_from: str
    ignored: dict[str, int] = {}
    notes: list[str] = []
    ambiguities: list[str] = []
