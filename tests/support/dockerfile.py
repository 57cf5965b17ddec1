"""Reads a Dockerfile: its stages and their instructions, enough to carry a stage out without Docker."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stage:
    """One `FROM ... AS name` and what follows it.

    Attributes:
        name: After AS.
        parent: What it starts from: another stage, or an image.
        steps: Instructions in their order, as (name, arguments).
    """

    name: str
    parent: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def last(self, instruction: str) -> str | None:
        """The arguments of the last such instruction."""
        return next((rest for name, rest in reversed(self.steps) if name == instruction), None)


def read(path: Path) -> dict[str, Stage]:
    """The stages of a Dockerfile by name."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for name, rest in _instructions(path.read_text(encoding="utf-8")):
        if name == "FROM":
            found = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert found, f"FROM {rest}: has no name"
            stage = stages.setdefault(found[2], Stage(found[2], found[1]))
        elif stage is not None:
            stage.steps.append((name, rest))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """A stage and those that it starts from, the first one first."""
    found: list[Stage] = []
    while name in stages:
        found.insert(0, stages[name])
        name = stages[name].parent
    return found


def environment(stages: dict[str, Stage], name: str) -> dict[str, str]:
    """Return the variables that ENV sets for a stage."""
    return {
        key: value
        for stage in lineage(stages, name)
        for instruction, rest in stage.steps
        if instruction == "ENV"
        for key, value in (word.split("=", 1) for word in shlex.split(rest))
    }


def inherited(stages: dict[str, Stage], name: str, instruction: str) -> str | None:
    """The arguments of the instruction that is in force in a stage."""
    return next((rest for stage in reversed(lineage(stages, name)) if (rest := stage.last(instruction))), None)


def words(arguments: str) -> list[str]:
    """A command in exec form."""
    found: list[str] = json.loads(arguments)
    return found


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines()) if name]
