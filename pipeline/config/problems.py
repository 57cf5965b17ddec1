"""Problems of a config: all of them are shown at once, and none twice."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pneumo.serving.contracts.errors import InputError

KeyPath = tuple[str | int, ...]
"""Position of a value: keys and list positions from the top level down."""
MOST = 200
"""Problems that one check may add: with more, something else is wrong with the file."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one value of a config.

    Attributes:
        place: `file:line`, or `-o KEY`.
        line: Line from 1; 0 for a value from the command line.
        message: Cause and fix, in one line.
        about: Other values that it is about too, such as the key that a misspelt one stands for.
    """

    place: str
    line: int
    path: KeyPath
    message: str
    about: tuple[KeyPath, ...] = ()

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"

    @property
    def values(self) -> tuple[KeyPath, ...]:
        """Paths of all values that it is about."""
        return self.path, *self.about


class ConfigError(InputError):
    """A config is wrong; the message has a line for each problem.

    Attributes:
        problems: All problems, sorted by line.
        document: The `Document` that could be read in spite of them, or None.
    """

    def __init__(self, problems: Iterable[Problem], document: Any = None) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.line)
        self.document = document
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def read_on[Document](problems: list[Problem], read: Callable[[], Document]) -> Document:
    """Return a document, or what could be read of it, with its problems appended; raise them if it is nothing."""
    try:
        return read()
    except ConfigError as error:
        problems += error.problems
        document: Document | None = error.document
        if document is None:
            raise ConfigError(problems) from None
        return document


def collect(problems: list[Problem], check: Callable[[], object]) -> None:
    """Append the problems that a check yields, lists or raises, at most `MOST`.

    A problem with a value is left out if an earlier check found one with it, or with a section that holds it.
    """
    found: list[Problem] = []
    try:
        result = check()
        if isinstance(result, Iterator | list):
            found.extend(itertools.islice(result, MOST))
    except ConfigError as error:
        found += error.problems
    except Exception:  # a value of a wrong type, which is reported, can break a later check
        if not problems:
            raise
    causes = {path for problem in problems for path in problem.values if path}
    told = set(causes)
    for problem in found:
        sections = {path[:length] for path in problem.values for length in range(1, len(path) + 1)}
        if causes.isdisjoint(sections) and told.isdisjoint(problem.values):
            problems.append(problem)
            told.update(problem.values)


def refuse(problems: Sequence[Problem], document: Any = None) -> None:
    """Raise a `ConfigError` if there are problems."""
    if problems:
        raise ConfigError(problems, document)
