"""A draft of a config with a `hyperopt` section and a reason for each choice, and its YAML with comments."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.config.problems import KeyPath
from pneumo.pipeline.config.selection_metric import LOSSES
from pneumo.pipeline.sweep.auto.cost import STARTUP, USABLE, Budget, Images, Share
from pneumo.pipeline.sweep.space import encode
from pneumo.serving.contracts.errors import InputError

_STOPPED = 0.5
"""Mean length of a trial relative to a whole one, if a scheduler stops the bad ones."""

_MOST_TRIALS = 50
_WIDTH = 118


@dataclass(frozen=True)
class Reason:
    """The reason for the value at a position in the config, in a sentence."""

    path: KeyPath
    text: str


@dataclass(frozen=True)
class Plan:
    """A chosen search.

    Attributes:
        config: A complete Ludwig config with a `hyperopt` section.
        reasons: One per choice; those with an empty path are about the whole plan.
        trial_seconds: Estimated duration of the first, known-good point.
    """

    config: dict[str, Any]
    reasons: tuple[Reason, ...]
    trials: int
    epochs: int
    trial_seconds: float
    share: Share


class Draft:
    """An unfinished plan: a config without `hyperopt`, and the epochs and seconds of a trial that is not stopped."""

    def __init__(self, config: dict[str, Any], *, epochs: int, seconds: float, budget: Budget) -> None:
        self.config = config
        self.epochs = epochs
        self.seconds = seconds
        self.budget = budget
        self.trials = min(_MOST_TRIALS, max(2, int(budget.whole_trials(seconds) / _STOPPED)))
        self._parameters: dict[str, Any] = {}
        self._reasons: list[Reason] = []

    def explain(self, text: str, *path: str | int) -> None:
        """Give a reason for the value at a path."""
        self._reasons.append(Reason(path, text))

    def introduce(self, images: Images, stored: int) -> None:
        """Explain the purpose and the length of the plan."""
        share, budget = self.budget.share, self.budget
        machine = f"{share.cpus * share.at_once} cores" + (f" and {share.at_once} GPUs" if share.gpus else "")
        self.explain(
            f"Chosen by `pneumo sweep --auto` for {images.train:,} training and {images.validation:,} validation "
            f"images of {stored} px, {machine} and {_format_span(budget.seconds)}. Edit this file as needed, then run "
            "`pneumo sweep FILE`."
        )
        shown, whole = self.epochs * images.train, budget.whole_trials(self.seconds)
        why = f"{shown:,} images per trial that is not stopped early, which should take at most"
        self.explain(
            f"{why} {_format_span(self.seconds)}; {whole:.1f} such trials fit the budget.", "trainer", "epochs"
        )

    def vary(self, name: str, space: dict[str, Any], why: str) -> None:
        """Add a parameter to the search."""
        self._parameters[name] = space
        self.explain(why, "hyperopt", "parameters", name)

    def finish(self, metric: str, points: Sequence[Mapping[str, Any]]) -> Plan:
        """Write the `hyperopt` section; known-good points come first, and only their varied values count."""
        first: list[dict[str, Any]] = []
        for point in points:
            encoded = {name: encode(point[name]) for name in self._parameters}
            if encoded not in first and len(first) < self.trials:
                first.append(encoded)
        share = self.budget.share
        hyperopt = {
            "output_feature": self.config["output_features"][0]["name"],
            "metric": metric,
            "goal": "minimize" if metric in LOSSES else "maximize",
            "split": "validation",
            "parameters": self._parameters,
            "search_alg": {"type": "optuna", "points_to_evaluate": first},
            "executor": {
                "type": "ray",
                "num_samples": self.trials,
                "time_budget_s": int(self.budget.seconds),
                "cpu_resources_per_trial": share.cpus,
                "gpu_resources_per_trial": share.gpus,
                "max_concurrent_trials": share.at_once,
                "scheduler": {
                    "type": "async_hyperband",
                    "time_attr": "training_iteration",
                    "max_t": self.epochs,
                    "grace_period": max(1, self.epochs // 4),
                    "reduction_factor": 3,
                },
            },
        }
        why = "Optuna's TPE, after these known-good points. Lists are JSON text, as Ludwig takes them."
        self.explain(why, "hyperopt", "search_alg")
        trials, cores = (
            f"{n} {word}{'s' if n > 1 else ''}" for n, word in ((share.at_once, "trial"), (share.cpus, "core"))
        )
        why = "asynchronous successive halving keeps a third of the trials at each of its rungs"
        why = f"{trials} at a time, {cores} each; {why}. max_t is trainer.epochs: change both."
        self.explain(why, "hyperopt", "executor")
        config = {**self.config, "hyperopt": hyperopt}
        return Plan(config, tuple(self._reasons), self.trials, self.epochs, self.seconds, share)


def refuse_budget(budget: Budget, trials: int, seconds: float, train: int) -> InputError:
    """Return the error that names the smallest time budget for so many whole trials."""
    minutes = math.ceil((max(2, trials) * seconds + STARTUP) / USABLE / 60)
    return InputError(
        f"--auto: {_format_span(budget.seconds)} is too little for {train:,} training images on this machine; "
        f"use at least --time-budget {minutes}m"
    )


def _format_span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def choice(values: Sequence[Any]) -> dict[str, Any]:
    """Return a space of a few values."""
    return {"space": "choice", "categories": list(values)}


def between(lower: float, upper: float, *, space: str = "loguniform") -> dict[str, Any]:
    """Return a space of a range, logarithmic by default."""
    return {"space": space, "lower": lower, "upper": upper}


def to_yaml(plan: Plan) -> str:
    """Return the config as YAML, each reason as a comment above its value."""
    text = yaml.dump(plan.config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    lines, positions = text.splitlines(), parse_document(text, "plan").lines
    comments: dict[int, list[str]] = {}
    for reason in plan.reasons:
        number = positions[reason.path] - 1
        indent = " " * (len(lines[number]) - len(lines[number].lstrip()))
        wrapped = textwrap.wrap(reason.text, _WIDTH - len(indent) - 2, break_long_words=False)
        comments.setdefault(number, []).extend(f"{indent}# {part}" for part in wrapped)
    return "".join(f"{row}\n" for number, line in enumerate(lines) for row in (*comments.get(number, ()), line))


class _Dumper(yaml.SafeDumper):
    """Writes small mappings and lists on one line, and no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        return super().represent_mapping(tag, mapping, flow_style=_is_short(mapping) or flow_style)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        return super().represent_sequence(tag, sequence, flow_style=_is_short(sequence) or flow_style)


def _is_short(value: Any) -> bool:
    """Return True if a mapping or list fits on one line: no long text, no mapping inside, not too many lists."""
    items = list(value.values()) if isinstance(value, dict) else list(value)
    if any(isinstance(item, str) and len(item) > _WIDTH // 3 for item in items):
        return False
    if not any(isinstance(item, dict | list) for item in items):
        return True
    return len(str(value)) < _WIDTH - 20 and not any(isinstance(item, dict) and item for item in items)
