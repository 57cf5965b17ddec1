"""Which subgroups an image belongs to: as a table says, or as Kermany's names say."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pneumo.pipeline.data.sources import Item
from pneumo.serving.contracts.errors import InputError

MOST_VALUES = 50
"""Values a group may have: with more, each holds too few images to be measured."""

# What caused a pneumonia, and which of the two series a normal image comes from.
_KERMANY = (
    ("kind", re.compile(r"person\d+_(bacteria|virus)(?![0-9A-Za-z])", re.IGNORECASE)),
    ("kind", re.compile(r"(BACTERIA|VIRUS)-\d+-\d+")),
    ("source", re.compile(r"((?:NORMAL\d*-)?IM)-\d+(?![0-9A-Za-z])")),
)


@dataclass(frozen=True)
class GroupRule:
    """How subgroups are told.

    Attributes:
        columns: Columns of the source's table that are groups.
        by_name: Whether names that are Kermany's say `kind` (bacteria, virus) and `source` (IM, NORMAL2-IM).
    """

    columns: tuple[str, ...] = ()
    by_name: bool = True

    @classmethod
    def parse(cls, text: str | None, *, by_name: bool = True) -> "GroupRule":
        """Read `sex,view`, in the spelling of the table but for case."""
        names = [" ".join(part.split()).casefold() for part in (text or "").split(",")]
        return cls(tuple(dict.fromkeys(filter(None, names))), by_name)

    def check(self, items: Sequence[Item]) -> None:
        """Refuse columns that cannot be groups.

        Raises:
            InputError: The source has no such column, or it has a value for nearly every image.
        """
        for column in self.columns:
            values = {item.columns[column] for item in items if column in item.columns}
            if not values:
                known = sorted({name for item in items for name in item.columns})
                has = f"its further columns are {', '.join(known)}" if known else "it has no table with such columns"
                raise InputError(f"--groups {column}: the source has no value under it; {has}")
            if len(values) > MOST_VALUES:
                raise InputError(
                    f"--groups {column}: {len(values)} different values; a group has at most {MOST_VALUES}, "
                    "so put them into ranges first"
                )

    def groups(self, item: Item) -> dict[str, str]:
        """Group names and values of an image, sorted by name."""
        found = {}
        stem = PurePosixPath(item.name).stem
        for name, pattern in _KERMANY if self.by_name else ():
            if match := pattern.match(stem):
                found[name] = match[1].lower() if name == "kind" else match[1]
        found |= {column: item.columns[column] for column in self.columns if column in item.columns}
        return dict(sorted(found.items()))
