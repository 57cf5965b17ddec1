import random

import pytest
from ray import tune

from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.sweep import space, sweep_settings, tune_setup
from pneumo.pipeline.sweep.space import Space
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import CONFIGS

BASE = (CONFIGS / "smoke.yaml").read_text(encoding="utf-8")
SECTION = """hyperopt:
  goal: maximize
  metric: roc_auc
  output_feature: label
  parameters:
    trainer.learning_rate_scheduler.max_lr: {space: loguniform, lower: 0.001, upper: 0.01}
    trainer.batch_size: {space: randint, lower: 8, upper: 11}
    image.encoder.fc_layers: {space: choice, categories: [[], [{output_size: 8}]]}
  search_alg:
    type: SEARCH
    points_to_evaluate:
      - trainer.learning_rate_scheduler.max_lr: 0.005
        trainer.batch_size: 9
        image.encoder.fc_layers: '[{"output_size": 8}]'
"""


def read(search: str = "variant_generator") -> Space:
    return space.read_space(parse_document(BASE + SECTION.replace("SEARCH", search), "f.yaml"), "f")


def test_every_space_becomes_ray_tunes_own() -> None:
    domains = tune_setup.make_domains(read())
    assert domains["trainer.learning_rate_scheduler.max_lr"].is_valid(0.002)
    assert isinstance(domains["trainer.batch_size"], tune.search.sample.Integer)
    assert {domains["trainer.batch_size"].sample() for _ in range(60)} == {8, 9, 10}
    assert domains["image.encoder.fc_layers"].categories == ["[]", '[{"output_size": 8}]']


def test_draws_of_the_check_and_of_ray_tune_share_their_range() -> None:
    asked = read()
    source = random.Random(0)
    for parameter in asked.parameters:
        drawn = {str(parameter.draw(source)) for _ in range(100)}
        theirs = tune_setup.make_domain(parameter)
        assert all(
            theirs.is_valid(parameter.encoded[0] if parameter.encoded else value) for value in parameter.ends()[:1]
        )
        assert drawn


@pytest.mark.parametrize("search", ["optuna", "hyperopt"])
def test_stated_points_are_tried_first_and_the_same_seed_draws_the_same(search: str) -> None:
    asked = read(search)
    how = sweep_settings.read_settings(asked)

    def drawn() -> list[dict[str, object]]:
        method = tune_setup.make_search(how, asked, 7, 1)
        method.set_search_properties("value", "max", tune_setup.make_domains(asked))
        return [asked.decode(method.suggest(str(number))) for number in range(3)]  # type: ignore[union-attr]

    first = drawn()
    assert first[0] == {
        "trainer.learning_rate_scheduler.max_lr": 0.005,
        "trainer.batch_size": 9,
        "image.encoder.fc_layers": [{"output_size": 8}],
    }
    assert first == drawn()
    for point in first:
        asked.experiment(point)


def test_a_scheduler_with_impossible_options_is_refused() -> None:
    asked = read()
    how = sweep_settings.read_settings(asked)
    with pytest.raises(InputError, match="scheduler"):
        tune_setup.make_scheduler(
            sweep_settings.SweepSettings(
                **{**vars(how), "scheduler": "async_hyperband", "scheduler_options": {"max_t": 0}}
            )
        )
