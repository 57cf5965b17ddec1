"""Look up files by names that may be written in another way: in a table, on another system, before a move."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

from pneumo.pipeline.data.sources.items import IMAGE_SUFFIXES, suffix_of


class FileNames:
    """Names of files, found in any case and Unicode form, with or without a suffix, in a folder above or below."""

    def __init__(self, names: Iterable[str]) -> None:
        self._whole: defaultdict[str, list[str]] = defaultdict(list)
        self._ends: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            folded = _fold(name)
            self._whole[folded].append(name)
            for end in _list_ends(folded):
                self._ends[end].append(name)

    def find(self, name: str) -> list[str]:
        """Return the files that a name can mean: one if it is certain, the best if some match better than others."""
        wanted = _fold(name)
        above = (file for end in _list_ends(wanted) if end != wanted for file in self._whole.get(end, ()))
        matches = [*self._ends.get(wanted, ()), *above]
        if len(matches) > 1:
            matches = [other for other in matches if suffix_of(other) == suffix_of(name)] or matches
        if len(matches) > 1:
            exact = unicodedata.normalize("NFC", name)
            matches = [other for other in matches if unicodedata.normalize("NFC", other).endswith(exact)] or matches
        return matches


def _fold(name: str) -> str:
    stem = name[: -len(suffix_of(name))] if suffix_of(name) in IMAGE_SUFFIXES else name
    return unicodedata.normalize("NFC", stem).casefold()


def _list_ends(path: str) -> Iterator[str]:
    """Yield a path, and what is left of it without its first folder, its first two folders, and so on."""
    while True:
        yield path
        _, slash, path = path.partition("/")
        if not slash:
            return
