"""A config with a `hyperopt` section in the making, with a reason for each choice; and as YAML with comments."""

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pneumo.pipeline.config.document import Document, KeyPath, parse_document
from pneumo.pipeline.sweep.auto.cost import STARTUP, Images, Share
from pneumo.serving.contracts.errors import InputError

USABLE = 0.9
"""Share of a time budget that is planned for."""

_STOPPED = 0.5
"""What a trial costs in the mean against a whole one, where a scheduler stops the bad ones."""

_MOST_TRIALS = 50
_WIDTH = 118
_SMALLER = ("loss", "binary_weighted_cross_entropy", "softmax_cross_entropy", "smoothed_binary_cross_entropy", "corn")


@dataclass(frozen=True)
class Reason:
    """Why a choice was made: where it stands in the config, and a sentence."""

    path: KeyPath
    text: str


@dataclass(frozen=True)
class Plan:
    """What was chosen.

    Attributes:
        config: A Ludwig config with a `hyperopt` section, complete.
        reasons: One a choice; those with an empty path are about the whole.
        trials: Trials at most; `epochs` of each that nothing stops.
        trial_seconds: Estimated duration of the first, known-good point.
        share: What each trial gets.
    """

    config: dict[str, Any]
    reasons: tuple[Reason, ...]
    trials: int
    epochs: int
    trial_seconds: float
    share: Share

    def document(self, name: str = "auto.yaml") -> Document:
        """The config as `pneumo.pipeline.config.build_experiment` takes it, with the lines of `to_yaml`."""
        return parse_document(to_yaml(self), name)


class Draft:
    """A plan in the making.

    Args:
        config: Everything but `hyperopt`.
        epochs: Of a trial that nothing stops.
        seconds: Estimated duration of a whole trial.
        budget: Seconds for the whole sweep.
        given: What each trial gets.
    """

    def __init__(self, config: dict[str, Any], *, epochs: int, seconds: float, budget: float, given: Share) -> None:
        self.config = config
        self.epochs = epochs
        self.seconds = seconds
        self.budget = budget
        self.given = given
        self.trials = min(_MOST_TRIALS, max(2, int(whole_trials(budget, given, seconds) / _STOPPED)))
        self._parameters: dict[str, Any] = {}
        self._reasons: list[Reason] = []

    def say(self, text: str, *path: str | int) -> None:
        """Give a reason for what stands at a path."""
        self._reasons.append(Reason(path, text))

    def introduce(self, images: Images, stored: int) -> None:
        """Say what the plan is for."""
        given = self.given
        machine = f"{given.cpus * given.at_once} cores" + (f" and {given.at_once} GPUs" if given.gpus else "")
        self.say(
            f"Chosen by `pneumo sweep --auto` for {images.train:,} training and {images.validation:,} validation "
            f"images of {stored} px, {machine} and {span(self.budget)}. Edit what you like, then `pneumo sweep FILE`.",
        )
        self.say(
            f"{self.epochs * images.train:,} images shown to a trial that runs to its end, which should take "
            f"{span(self.seconds)} at most; {whole_trials(self.budget, given, self.seconds):.1f} of these fit.",
            "trainer",
            "epochs",
        )

    def vary(self, name: str, space: dict[str, Any], why: str) -> None:
        """Make something a parameter of the search."""
        self._parameters[name] = space
        self.say(why, "hyperopt", "parameters", name)

    def finish(self, metric: str, points: Sequence[Mapping[str, Any]]) -> Plan:
        """Write the `hyperopt` section.

        Args:
            metric: Validation metric, Ludwig's name.
            points: Known-good values by parameter; what is no parameter is left out.
        """
        known: list[dict[str, Any]] = []
        for point in points:
            told = {name: as_searched(point[name]) for name in self._parameters}
            if told not in known and len(known) < self.trials:
                known.append(told)
        given = self.given
        executor: dict[str, Any] = {
            "type": "ray",
            "num_samples": self.trials,
            "time_budget_s": int(self.budget),
            "cpu_resources_per_trial": given.cpus,
            "gpu_resources_per_trial": given.gpus,
            "max_concurrent_trials": given.at_once,
            "scheduler": {
                "type": "async_hyperband",
                "time_attr": "training_iteration",
                "max_t": self.epochs,
                "grace_period": max(1, self.epochs // 4),
                "reduction_factor": 3,
            },
        }
        hyperopt = {
            "output_feature": self.config["output_features"][0]["name"],
            "metric": metric,
            "goal": "minimize" if metric in _SMALLER else "maximize",
            "split": "validation",
            "parameters": self._parameters,
            "search_alg": {"type": "optuna", "points_to_evaluate": known},
            "executor": executor,
        }
        self.say(
            "Optuna's TPE, after these points, which are known to be good. Lists stand as JSON text, as Ludwig takes "
            "them.",
            "hyperopt",
            "search_alg",
        )
        self.say(
            f"{given.at_once} trial{'s' if given.at_once > 1 else ''} at a time, {given.cpus} "
            f"core{'s' if given.cpus > 1 else ''} each; asynchronous successive halving keeps a third of the trials at "
            "each of its rungs. max_t is trainer.epochs: change both.",
            "hyperopt",
            "executor",
        )
        return Plan(
            {**self.config, "hyperopt": hyperopt}, tuple(self._reasons), self.trials, self.epochs, self.seconds, given
        )


def usable(budget: float) -> float:
    """Seconds of a budget in which trials can work."""
    return max(0.0, budget * USABLE - STARTUP)


def whole_trials(budget: float, given: Share, seconds: float) -> float:
    """How many trials of so many seconds fit into a budget."""
    return usable(budget) * given.at_once / seconds


def fits(seconds: float, trials: int, budget: float, given: Share) -> bool:
    """Whether so many whole trials fit, and one of them twice over, so that it ends in time on a busy machine too."""
    return whole_trials(budget, given, seconds) >= trials and 2 * seconds <= usable(budget)


def too_little(budget: float, trials: int, seconds: float, train: int) -> InputError:
    """The error that says which budget would do for so many whole trials."""
    minutes = math.ceil((max(2, trials) * seconds + STARTUP) / USABLE / 60)
    return InputError(
        f"--auto: {span(budget)} is too little for {train:,} training images on this machine; "
        f"the least that makes sense is --time-budget {minutes}m"
    )


def span(seconds: float) -> str:
    """Seconds as people say them: `50 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def choice(values: Sequence[Any]) -> dict[str, Any]:
    """A space of a few values."""
    return {"space": "choice", "categories": list(values)}


def between(lower: float, upper: float, *, space: str = "loguniform") -> dict[str, Any]:
    """A range, logarithmic unless said otherwise."""
    return {"space": space, "lower": lower, "upper": upper}


def as_searched(value: Any) -> Any:
    """A value as Ludwig hands it to a search algorithm: all but numbers as JSON text."""
    return value if isinstance(value, int | float) else json.dumps(value)


def to_yaml(plan: Plan) -> str:
    """The config as a file, its reasons as comments above what they are about."""
    text = yaml.dump(plan.config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH)
    lines, known = text.splitlines(), parse_document(text, "plan").lines
    above: dict[int, list[str]] = {}
    for reason in plan.reasons:
        number = known[reason.path] - 1
        indent = " " * (len(lines[number]) - len(lines[number].lstrip()))
        wrapped = textwrap.wrap(reason.text, _WIDTH - len(indent) - 2, break_long_words=False)
        above.setdefault(number, []).extend(f"{indent}# {part}" for part in wrapped)
    return "".join(f"{row}\n" for number, line in enumerate(lines) for row in (*above.get(number, ()), line))


class _Dumper(yaml.SafeDumper):
    """Writes small mappings and lists on one line, and no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent what is listed."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write what stands twice twice."""
        return True

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
        """One line where it fits and holds nothing but values."""
        return super().represent_mapping(tag, mapping, flow_style=_short(mapping) or flow_style)

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
        """One line where it holds nothing but values."""
        return super().represent_sequence(tag, sequence, flow_style=_short(sequence) or flow_style)


def _short(value: Any) -> bool:
    """Whether something belongs on one line: it has no long text, no mapping inside, and not too much of lists."""
    inner = list(value.values()) if isinstance(value, dict) else list(value)
    if any(isinstance(item, str) and len(item) > _WIDTH // 3 for item in inner):
        return False
    if not any(isinstance(item, dict | list) for item in inner):
        return True
    return len(str(value)) < _WIDTH - 20 and not any(isinstance(item, dict) and item for item in inner)
