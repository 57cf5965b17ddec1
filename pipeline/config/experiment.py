"""A config that was checked: what a run needs to know about it."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import yaml

from pneumo.pipeline.config import schema
from pneumo.pipeline.config.document import Document, read_document
from pneumo.pipeline.config.rules import experiment_rules
from pneumo.pipeline.config.schema import DECISIONS
from pneumo.pipeline.decisions.decision_rules import DecisionRules
from pneumo.pipeline.decisions.policies import Policy
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.images.types import Decode

LUDWIG_BOOLEANS = frozenset(("yes", "y", "true", "t", "1", "1.0", "no", "n", "false", "f", "0", "0.0", "-1", "-1.0"))
"""Words that Ludwig maps to true or false before it looks at `fallback_true_label`."""


@dataclass(frozen=True)
class Experiment:
    """A checked config.

    Attributes:
        name: The config file's stem.
        document: The config as resolved: defaults that pneumo sets are filled in.
    """

    name: str
    document: Document

    @property
    def config(self) -> dict[str, Any]:
        """What Ludwig is given; it passes over our section `decisions`."""
        return self.document.data

    @property
    def decisions(self) -> DecisionRules:
        """What is asked of threshold, conformal sets and the out-of-distribution limit."""
        return read_decision_rules(self.document)

    @property
    def image(self) -> str:
        """Name of the image feature, which is its column too."""
        return str(self.config["input_features"][0]["name"])

    @property
    def label(self) -> str:
        """Name of the label feature, which is its column too."""
        return str(self.config["output_features"][0]["name"])

    @property
    def kind(self) -> Literal["binary", "category"]:
        """Type of the label feature."""
        kind: Literal["binary", "category"] = self.config["output_features"][0]["type"]
        return kind

    @property
    def positive(self) -> str | None:
        """The class whose probability is reported, for a binary label."""
        if self.kind != "binary":
            return None
        return str(self.config["output_features"][0]["preprocessing"]["fallback_true_label"])

    def preparation(self, *, size: int, fit: str, decode: str = Decode.FULL) -> Preparation:
        """How this experiment's model takes images of a data set that was stored with `size`, `fit` and `decode`."""
        image = self.config["input_features"][0]["preprocessing"]
        return Preparation.model_validate(
            {
                "size": size,
                "fit": fit,
                "decode": decode,
                "height": image["height"],
                "width": image["width"],
                "channels": image["num_channels"],
            }
        )

    def to_yaml(self) -> str:
        """The resolved config as a file."""
        return yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse a label feature that does not fit the classes of a data set.

        Raises:
            InputError: Not two classes for a binary label, two for a category, an unknown positive class, or a class
                name that Ludwig takes for a boolean.
        """
        if self.kind != "binary":
            if len(classes) == 2:
                self.document.fail(
                    ("output_features", 0, "type"),
                    "the data set has two classes: use type: binary, and state the positive one with "
                    "preprocessing: {fallback_true_label: ...}",
                )
            return
        words = [name for name in classes if name.lower() in LUDWIG_BOOLEANS]
        if words:
            raise InputError(
                f"class {words[0]!r}: Ludwig reads it as a boolean and would mix up the classes; rename it"
            )
        if len(classes) != 2:
            self.document.fail(
                ("output_features", 0, "type"),
                f"a binary label has two classes, the data set has {len(classes)}: use type: category",
            )
        if self.positive not in classes:
            self.document.fail(
                ("output_features", 0, "preprocessing", "fallback_true_label"),
                f"the positive class {self.positive!r} is not in the data set, which has {' and '.join(classes)}",
            )


def load_config(path: pathlib.Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read, override and check a config file, without loading Ludwig.

    Args:
        path: A YAML file.
        overrides: `key.key=value` assignments.

    Raises:
        InputError: The file or a value is wrong: file, line, what is wrong and what was meant.
    """
    return build_experiment(read_document(path).override(overrides), path.stem)


def build_experiment(document: Document, name: str) -> Experiment:
    """Check a document and fill in what pneumo sets.

    Raises:
        InputError: A value is wrong.
    """
    schema.check_schema(document)
    experiment_rules.check_rules(document)
    asked = read_decision_rules(document)
    if document.data.get("hyperopt") is not None and not isinstance(document.data["hyperopt"], dict):
        raise InputError(f"{document.place(('hyperopt',))}: hyperopt must be a mapping")
    return Experiment(name, _resolved(document, asked))


def read_decision_rules(document: Document) -> DecisionRules:
    """Read the section `decisions` of a config, defaults where it is silent.

    Raises:
        InputError: A key is unknown, a value is out of range, or the threshold's rule is none.
    """
    schema.check_decisions(document)
    section = document.get((DECISIONS,)) or {}
    asked = DecisionRules()
    path = (DECISIONS, "threshold")
    if "threshold" in section:
        if document.get(("output_features", 0, "type")) == "category":
            document.fail(path, f"{DECISIONS}.threshold is for a binary label; leave it out, the likeliest class wins")
        place = f"{document.place(path)}: {DECISIONS}.threshold"
        asked = replace(asked, policy=Policy.parse(section["threshold"], place=place))
    return replace(
        asked,
        level=section.get("coverage", asked.level),
        outlier_quantile=section.get("outliers", asked.outlier_quantile),
    )


def _resolved(document: Document, asked: DecisionRules) -> Document:
    """Fill in what pneumo decides where the config is silent, so that `config.yaml` says it."""
    filled = document.override(())
    trainer = filled.data.setdefault("trainer", {})
    trainer.setdefault("eval_batch_size", trainer["batch_size"])  # unset, Ludwig times batch sizes first
    trainer.setdefault("evaluate_training_set", False)
    trainer.setdefault("validation_field", filled.data["output_features"][0]["name"])
    metric = "roc_auc" if filled.data["output_features"][0]["type"] == "binary" else "loss"
    trainer.setdefault("validation_metric", metric)
    if filled.data.setdefault("backend", {"type": "local"}).get("type") == "ray":
        trainer.setdefault(
            "learning_rate_scaling", "constant"
        )  # the batch is that of all workers, whatever their number
    threshold = {"threshold": str(asked.policy)} if filled.data["output_features"][0]["type"] == "binary" else {}
    filled.data[DECISIONS] = threshold | {"coverage": asked.level, "outliers": asked.outlier_quantile}
    return filled
