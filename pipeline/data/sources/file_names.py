"""Look up files by names that may be written in another way: in a table, on another system, before a move."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from pneumo.pipeline.data.sources.items import IMAGE_SUFFIXES, suffix_of


class FileNames:
    """Names of files, found in any case and Unicode form, with or without a suffix, in a folder above or below."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            self._names[_fold(name)[-1]].append(name)

    def find(self, name: str) -> list[str]:
        """Return the files that a name can mean: one if it is certain, the best if some match better than others."""
        wanted = _fold(name)
        matches = [other for other in self._names.get(wanted[-1], ()) if _end_alike(_fold(other), wanted)]
        for same in (
            lambda other: suffix_of(other) == suffix_of(name),
            lambda other: unicodedata.normalize("NFC", other).endswith(unicodedata.normalize("NFC", name)),
        ):
            if len(matches) > 1:
                matches = [other for other in matches if same(other)] or matches
        return matches


def _fold(name: str) -> list[str]:
    parts = unicodedata.normalize("NFC", name).casefold().split("/")
    if suffix_of(parts[-1]) in IMAGE_SUFFIXES:
        parts[-1] = parts[-1].rpartition(".")[0]
    return parts


def _end_alike(one: list[str], other: list[str]) -> bool:
    shorter = min(len(one), len(other))
    return one[-shorter:] == other[-shorter:]
