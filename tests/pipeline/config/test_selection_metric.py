from pathlib import Path

import jsonschema
import pytest

from pneumo.pipeline import config
from pneumo.pipeline.config.json_schema import build_json_schema
from pneumo.pipeline.config.selection_metric import OWN, is_ludwigs, read_weights
from pneumo.pipeline.sweep.space import read_space
from pneumo.pipeline.sweep.sweep_settings import read_settings
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import CONFIGS

SMOKE = CONFIGS / "smoke.yaml"
PARAMETERS = "parameters: {trainer.batch_size: {space: choice, categories: [16, 32]}}"
HYPEROPT = f"hyperopt={{output_feature: label, goal: maximize, {PARAMETERS}}}"


@pytest.mark.parametrize(
    ("metric", "weights"),
    [
        ("roc_auc", {"roc_auc": 1}),
        ("stress.worst", {"stress.worst": 1}),
        ("roc_auc + stress.auroc", {"roc_auc": 0.5, "stress.auroc": 0.5}),
        ("roc_auc+3 stress.worst", {"roc_auc": 0.25, "stress.worst": 0.75}),
        ("0.5*accuracy + 0.25 * stress.worst + 0.25 recall", {"accuracy": 0.5, "stress.worst": 0.25, "recall": 0.25}),
        ("2*roc_auc + 1 worst_group.auroc + 1 roc_auc", {"roc_auc": 0.75, "worst_group.auroc": 0.25}),
    ],
)
def test_a_weighted_mean_is_read_with_weights_that_sum_to_one(metric: str, weights: dict[str, float]) -> None:
    assert read_weights(metric) == pytest.approx(weights)
    assert is_ludwigs(metric) == (metric == "roc_auc")


@pytest.mark.parametrize("metric", [*OWN, "roc_auc + stress.auroc", "0.5 recall + 2 specificity + 1 stress.worst"])
def test_epochs_and_trials_may_be_chosen_by_metrics_under_change(metric: str) -> None:
    overrides = [f"trainer.validation_metric={metric}", HYPEROPT, f"hyperopt.metric={metric}"]
    experiment = config.load_config(SMOKE, overrides)
    assert experiment.config["trainer"]["validation_metric"] == metric
    assert read_settings(read_space(experiment.document, "smoke")).metric == metric
    jsonschema.Draft202012Validator(build_json_schema()).validate(experiment.document.data)


@pytest.mark.parametrize(
    ("metric", "message", "overrides"),
    [
        ("stress.auc", "did you mean 'stress.auroc'?", []),
        ("roc_auc + stres.worst", "did you mean 'stress.worst'?", []),
        ("roc_auc - stress.worst", "a mean such as roc_auc + 2 stress.worst", []),
        ("loss + stress.worst", "loss is no share and has no place in a mean", []),
        ("0 roc_auc + stress.worst", "a weight is 0", []),
        ("stress.auroc", "measured in one process", ["backend={type: ray}"]),
        ("stress.auroc", "is for a binary label", ["output_features=[{name: label, type: category}]"]),
    ],
)
def test_a_metric_that_cannot_be_measured_is_refused_with_the_fix(
    metric: str, message: str, overrides: list[str], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        config.load_config(SMOKE, [f"trainer.validation_metric={metric}", *overrides])
    assert "trainer.validation_metric" in str(caught.value)
    assert message in str(caught.value)
    with pytest.raises(InputError, match=r"hyperopt\.metric"):
        read_settings(
            read_space(config.load_config(SMOKE, [HYPEROPT, f"hyperopt.metric={metric}", *overrides]).document, "s")
        )
