"""A checked config, and what a run reads from it."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import yaml

from pneumo.pipeline.config.completion import complete, complete_from_data
from pneumo.pipeline.config.document import Document, read_document
from pneumo.pipeline.config.draft import Draft
from pneumo.pipeline.config.problems import Problem, collect, read_on, refuse
from pneumo.pipeline.config.rules.class_rules import check_classes
from pneumo.pipeline.config.rules.component_rules import check_loss_options
from pneumo.pipeline.config.rules.experiment_rules import RULES, check_features
from pneumo.pipeline.config.schema import DECISIONS, check_decisions, check_schema
from pneumo.pipeline.config.upgrade import drop_ignored, upgrade
from pneumo.pipeline.decisions.policies import DecisionRules, Policy
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation, Storage

if TYPE_CHECKING:
    from pneumo.pipeline.data.manifest import Dataset

Check = Callable[[Document], Iterable[Problem] | None]
"""A further check of a config: it yields or raises problems."""


@dataclass(frozen=True)
class Experiment:
    """A checked config."""

    name: str  # the config file's stem
    document: Document  # completed as far as is known, without pneumo's defaults
    remarks: tuple[str, ...] = ()  # one line for each value that was completed, changed or ignored

    @functools.cached_property
    def config(self) -> dict[str, Any]:
        """Config with pneumo's defaults as Ludwig gets it; it ignores the section `decisions`."""
        return _fill_defaults(self.document, self.decisions)

    @property
    def decisions(self) -> DecisionRules:
        """Rules for the threshold, the prediction sets and the outlier limit."""
        return read_decision_rules(self.document)

    @property
    def image(self) -> str:
        """Name of the image feature, which is also its column."""
        return str(self.config["input_features"][0]["name"])

    @property
    def label(self) -> str:
        """Name of the label feature, which is also its column."""
        return str(self.config["output_features"][0]["name"])

    @property
    def kind(self) -> Literal["binary", "category"]:
        """Type of the label feature."""
        return "binary" if self.config["output_features"][0]["type"] == "binary" else "category"

    @property
    def positive(self) -> str | None:
        """Positive class of a binary label."""
        label = self.config["output_features"][0]
        positive = (label.get("preprocessing") or {}).get("fallback_true_label")
        return str(positive) if self.kind == "binary" and positive is not None else None

    def preparation(self, storage: Storage) -> Preparation:
        """Return how this experiment's model takes images of a data set that stores them so."""
        image = self.config["input_features"][0]["preprocessing"]
        shape = {"height": image["height"], "width": image["width"], "channels": image["num_channels"]}
        return Preparation.model_validate({**storage.settings(), **shape})

    def to_yaml(self) -> str:
        """Return the resolved config as YAML, with a comment for each remark."""
        comments = "".join(f"# {remark}\n" for remark in self.remarks)
        return comments + yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)

    def complete(self, dataset: "Dataset") -> "Experiment":
        """Return it with what a data set knows, such as its size; raise a `ConfigError` if they do not fit."""
        completed = build_experiment(self.document, self.name, dataset=dataset)
        return replace(completed, remarks=self.remarks + completed.remarks)


def load_config(
    path: pathlib.Path,
    overrides: Sequence[str] = (),
    checks: Sequence[Check] = (),
    dataset: "Dataset | None" = None,
) -> Experiment:
    """Read a config file, apply `key.key=value` overrides and check it, without loading Ludwig.

    Raises:
        ConfigError: The file or values are wrong; the message has a line for each: place, problem and fix.
        InputError: The file cannot be read.
    """
    problems: list[Problem] = []
    document = read_on(problems, lambda: read_document(path))
    document = read_on(problems, lambda: document.override(overrides))
    return build_experiment(document, path.stem, checks, problems, dataset)


def build_experiment(
    document: Document,
    name: str,
    checks: Sequence[Check] = (),
    problems: Sequence[Problem] = (),
    dataset: "Dataset | None" = None,
) -> Experiment:
    """Upgrade, check and complete a document; raise a `ConfigError` of all problems, those of reading first."""
    found, draft = list(problems), upgrade_document(document)
    document, source = draft.document, draft.document.override(())
    rules: list[Check] = [*RULES, _check_threshold]
    first: list[Check] = [check_features, check_schema, check_loss_options]
    for check in first:
        collect(found, functools.partial(check, document))
    if len(found) == len(problems):  # it fits the schema
        complete(draft)
        if dataset is not None:
            collect(found, functools.partial(complete_from_data, draft, dataset))
            rules.insert(0, check_schema)
    if dataset is not None:
        rules.append(functools.partial(check_classes, classes=dataset.info.classes))
    for check in rules:
        collect(found, functools.partial(check, document))
    for check in checks:
        collect(found, functools.partial(check, source))
    refuse(found)
    return Experiment(name, document, tuple(draft.remarks))


def upgrade_document(document: Document) -> Draft:
    """Return a document in the form of Ludwig 0.17.10, without what Ludwig ignores, and remarks on that."""
    draft = Draft(document)
    upgrade(draft)
    drop_ignored(draft)
    return draft


def read_decision_rules(document: Document) -> DecisionRules:
    """Read the section `decisions` of a config, or the defaults; raise an `InputError` if a key or value is wrong."""
    refuse(list(check_decisions(document)))
    section = document.get(DECISIONS) or {}
    rules = DecisionRules()
    if "threshold" in section:
        path = f"{DECISIONS}.threshold"
        if document.get("output_features.0.type") == "category":
            document.reject(path, "is for a binary label; leave it out, the most probable class is predicted")
        try:
            rules = replace(rules, policy=Policy.parse(section["threshold"], place=path))
        except InputError as error:
            document.fail(path, str(error))
    rules = replace(
        rules,
        level=section.get("coverage", rules.level),
        outlier_quantile=section.get("outliers", rules.outlier_quantile),
    )
    try:
        return replace(rules, fit_on=section.get("fit_on", rules.fit_on))
    except InputError as error:
        document.fail(f"{DECISIONS}.fit_on", str(error))


def _check_threshold(document: Document) -> None:
    read_decision_rules(document)


def _fill_defaults(document: Document, rules: DecisionRules) -> dict[str, Any]:
    """Return the values of a document with pneumo's defaults, so that a run's `config.yaml` states them."""
    filled = document.override(()).data
    label = filled["output_features"][0]
    is_binary = label["type"] == "binary"
    trainer = filled.setdefault("trainer", {})
    trainer.setdefault("evaluate_training_set", False)
    trainer.setdefault("validation_field", label["name"])
    trainer.setdefault("validation_metric", "roc_auc" if is_binary else "loss")
    if filled.setdefault("backend", {"type": "local"}).get("type") == "ray":
        trainer.setdefault("learning_rate_scaling", "constant")  # the batch size is that of all workers together
    threshold = {"threshold": str(rules.policy)} if is_binary else {}
    filled[DECISIONS] = threshold | {"coverage": rules.level, "outliers": rules.outlier_quantile}
    filled[DECISIONS]["fit_on"] = rules.fit_on
    return filled
