"""Subgroups of an image, from a table or from Kermany's names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pneumo.pipeline.data.sources import Item
from pneumo.serving.contracts.errors import InputError

MOST_VALUES = 50
"""Most values of a group: with more, each holds too few images to measure."""

# The cause of a pneumonia, and the series that a normal image comes from.
_KERMANY = (
    ("kind", re.compile(r"person\d+_(bacteria|virus)(?![0-9A-Za-z])", re.IGNORECASE)),
    ("kind", re.compile(r"(BACTERIA|VIRUS)-\d+-\d+")),
    ("source", re.compile(r"((?:NORMAL\d*-)?IM)-\d+(?![0-9A-Za-z])")),
)


@dataclass(frozen=True)
class GroupRule:
    """How subgroups are found.

    Attributes:
        columns: Columns of the source's table that are groups.
        by_name: Kermany's names give `kind` (bacteria, virus) and `source` (IM, NORMAL2-IM).
    """

    columns: tuple[str, ...] = ()
    by_name: bool = True

    @classmethod
    def parse(cls, text: str | None, *, by_name: bool = True) -> "GroupRule":
        """Parse `sex,view`; case and spaces do not matter."""
        names = [" ".join(part.split()).casefold() for part in (text or "").split(",")]
        return cls(tuple(dict.fromkeys(filter(None, names))), by_name)

    def check(self, items: Sequence[Item]) -> None:
        """Refuse columns that cannot be groups.

        Raises:
            InputError: The source has no such column, or the column has too many values.
        """
        for column in self.columns:
            values = {item.columns[column] for item in items if column in item.columns}
            if not values:
                others = ", ".join(sorted({name for item in items for name in item.columns}))
                has = f"choose from its further columns: {others}" if others else "its images are not listed in a table"
                raise InputError(f"--groups {column}: no such column in the source; {has}")
            if len(values) > MOST_VALUES:
                raise InputError(
                    f"--groups {column}: {len(values)} different values; a group has at most {MOST_VALUES}, "
                    "so put them into ranges first"
                )

    def groups(self, item: Item) -> dict[str, str]:
        """Return group names and values of an image, sorted by name."""
        stem = PurePosixPath(item.name).stem
        matches = [(name, pattern.match(stem)) for name, pattern in _KERMANY] if self.by_name else []
        groups = {name: match[1].lower() if name == "kind" else match[1] for name, match in matches if match}
        groups |= {column: item.columns[column] for column in self.columns if column in item.columns}
        return dict(sorted(groups.items()))
