"""Options that say how a source is to be understood."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from pneumo.pipeline.data.sources.items import clean_label
from pneumo.serving.contracts.errors import InputError

NONE = "none"
"""Value of an option that means: there is no such column."""
_LEVELS = {"class", "split", "patient"}


@dataclass(frozen=True)
class SourceOptions:
    """How a source is to be understood; what is None is found out, or asked for if it is not certain.

    Attributes:
        layout: Levels of folders from the top, such as `split/class`: `class`, `split`, `patient`, or `any` for a level
            that means nothing. Folders that hold all of the others do not count.
        table: Table that gives the labels: its name in the source, or a path on disk.
        image_column: Its column of file names; `image` by default.
        label_column: Its column of classes; `label` by default.
        patient_column: Its column of patients; `patient` by default, `none` ignores it.
        split_column: Its column of splits; `split` by default, `none` ignores it.
        rename: New names of classes, such as `no finding=NORMAL`; the same new name merges classes.

    Raises:
        InputError: The options contradict each other, or cannot be parsed.
    """

    layout: str | None = None
    table: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    patient_column: str | None = None
    split_column: str | None = None
    rename: Sequence[str] = ()

    def __post_init__(self) -> None:
        words = [word for word in self.levels if word != "any"]
        if self.levels and ("class" not in words or set(words) - _LEVELS or len(set(words)) < len(words)):
            raise InputError(
                f"--layout {self.layout!r}: give the levels of folders from the top, such as class, split/class, "
                "class/patient or any/class; any is a level that means nothing"
            )
        if self.levels and self.tabular:
            raise InputError(
                f"{self.tabular[0]} is for labels in a table, --layout for labels in folders: leave out one"
            )
        _ = self.renames

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels of `layout`; empty without one."""
        return () if self.layout is None else tuple(self.layout.strip("/").split("/"))

    @property
    def tabular(self) -> list[str]:
        """Names of the options given that are about a table."""
        names = ("table", "image_column", "label_column", "patient_column", "split_column")
        return [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]

    @cached_property
    def renames(self) -> dict[str, str]:
        """New name by old name."""
        pairs: dict[str, str] = {}
        for text in self.rename:
            old, _, new = map(clean_label, text.partition("="))
            if not (old and new) or pairs.setdefault(old, new) != new:
                raise InputError(f'--rename {text!r}: write "OLD=NEW", each old name once: "no finding=NORMAL"')
        return pairs
