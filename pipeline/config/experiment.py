"""A checked config, and what a run reads from it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from pneumo.pipeline.config.document import Document, read_document
from pneumo.pipeline.config.rules.experiment_rules import check_rules
from pneumo.pipeline.config.schema import DECISIONS, check_decisions, check_schema
from pneumo.pipeline.decisions.policies import DecisionRules, Policy
from pneumo.serving.images.preparation import Preparation, Storage


@dataclass(frozen=True)
class Experiment:
    """A checked config."""

    name: str  # the config file's stem
    document: Document  # resolved: with pneumo's defaults

    @property
    def config(self) -> dict[str, Any]:
        """Config as Ludwig gets it; it ignores the section `decisions`."""
        return self.document.data

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
        return str(label["preprocessing"]["fallback_true_label"]) if self.kind == "binary" else None

    def preparation(self, storage: Storage) -> Preparation:
        """Return how this experiment's model takes images of a data set that stores them so."""
        image = self.config["input_features"][0]["preprocessing"]
        shape = {"height": image["height"], "width": image["width"], "channels": image["num_channels"]}
        return Preparation.model_validate({**storage.settings(), **shape})

    def to_yaml(self) -> str:
        """Return the resolved config as YAML."""
        return yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse a label feature that does not fit the classes of a data set.

        Raises:
            InputError: Not two classes for a binary label, two for a category, or an unknown positive class.
        """
        kind, count = "output_features.0.type", len(classes)
        if self.kind != "binary":
            if count == 2:
                fix = "use type: binary, and state the positive class with preprocessing: {fallback_true_label: ...}"
                self.document.fail(kind, f"the data set has two classes: {fix}")
            return
        if count != 2:
            self.document.fail(kind, f"a binary label has two classes, the data set has {count}: use type: category")
        if self.positive not in classes:
            self.document.fail(
                "output_features.0.preprocessing.fallback_true_label",
                f"the positive class {self.positive!r} is not in the data set, which has {' and '.join(classes)}",
            )


def load_config(path: pathlib.Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read a config file, apply `key.key=value` overrides and check it, without loading Ludwig.

    Raises:
        InputError: The file or a value is wrong; the message has file, line, problem and suggestion.
    """
    return build_experiment(read_document(path).override(overrides), path.stem)


def build_experiment(document: Document, name: str) -> Experiment:
    """Check a document and fill in pneumo's defaults; raise an `InputError` if a value is wrong."""
    check_schema(document)
    check_rules(document)
    if not isinstance(document.data.get("hyperopt"), dict | None):
        document.reject("hyperopt", "must be a mapping")
    return Experiment(name, _fill_defaults(document, read_decision_rules(document)))


def read_decision_rules(document: Document) -> DecisionRules:
    """Read the section `decisions` of a config, or the defaults; raise an `InputError` if a key or value is wrong."""
    check_decisions(document)
    section = document.get(DECISIONS) or {}
    rules = DecisionRules()
    if "threshold" in section:
        path = f"{DECISIONS}.threshold"
        if document.get("output_features.0.type") == "category":
            document.reject(path, "is for a binary label; leave it out, the most probable class is predicted")
        place = f"{document.locate((DECISIONS, 'threshold'))}: {path}"
        rules = replace(rules, policy=Policy.parse(section["threshold"], place=place))
    return replace(
        rules,
        level=section.get("coverage", rules.level),
        outlier_quantile=section.get("outliers", rules.outlier_quantile),
    )


def _fill_defaults(document: Document, rules: DecisionRules) -> Document:
    """Write pneumo's defaults into a config, so that a run's `config.yaml` states them."""
    filled = document.override(())
    label = filled.data["output_features"][0]
    is_binary = label["type"] == "binary"
    trainer = filled.data.setdefault("trainer", {})
    trainer.setdefault("eval_batch_size", trainer["batch_size"])  # if unset, Ludwig times batch sizes first
    trainer.setdefault("evaluate_training_set", False)
    trainer.setdefault("validation_field", label["name"])
    trainer.setdefault("validation_metric", "roc_auc" if is_binary else "loss")
    if filled.data.setdefault("backend", {"type": "local"}).get("type") == "ray":
        trainer.setdefault("learning_rate_scaling", "constant")  # the batch size is that of all workers together
    threshold = {"threshold": str(rules.policy)} if is_binary else {}
    filled.data[DECISIONS] = threshold | {"coverage": rules.level, "outliers": rules.outlier_quantile}
    return filled
