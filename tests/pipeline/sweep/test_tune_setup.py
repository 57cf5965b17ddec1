from statistics import fmean
from typing import Any

import pytest
from ray import tune
from ray.tune.search import Searcher
from ray.tune.search.variant_generator import generate_variants

from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.sweep import space, sweep_settings, tune_setup
from pneumo.pipeline.sweep.record import Round, Trial, TrialStatus
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


def suggest(asked: Space, method: Searcher, count: int) -> list[dict[str, object]]:
    return [asked.decode(method.suggest(f"new{number}")) for number in range(count)]


def make_trials(points: list[dict[str, Any]]) -> list[Trial]:
    """Trials of points, of which the one with the largest rate is the best."""
    value = "trainer.learning_rate_scheduler.max_lr"
    return [
        Trial(
            name=f"t{number:02d}",
            parameters=point,
            seed=7,
            status=TrialStatus.DONE,
            rounds=[Round(epoch=1, step=1, value=point[value], seconds=1, at=1)],
        )
        for number, point in enumerate(points, start=1)
    ]


def test_every_space_becomes_ray_tunes_own() -> None:
    domains = tune_setup.make_domains(read())
    assert domains["trainer.learning_rate_scheduler.max_lr"].is_valid(0.002)
    assert isinstance(domains["trainer.batch_size"], tune.search.sample.Integer)
    assert {domains["trainer.batch_size"].sample() for _ in range(60)} == {8, 9, 10}
    assert domains["image.encoder.fc_layers"].categories == ["[]", '[{"output_size": 8}]']


@pytest.mark.parametrize("search", ["optuna", "hyperopt"])
def test_stated_points_are_tried_first_and_the_same_seed_draws_the_same(search: str) -> None:
    asked = read(search)
    how = sweep_settings.read_settings(asked)

    def drawn() -> list[dict[str, object]]:
        method = tune_setup.make_searcher(how, asked, 7)
        method.set_search_properties("value", "max", tune_setup.make_domains(asked))
        return suggest(asked, method, 3)

    first = drawn()
    assert first[0] == {
        "trainer.learning_rate_scheduler.max_lr": 0.005,
        "trainer.batch_size": 9,
        "image.encoder.fc_layers": [{"output_size": 8}],
    }
    assert first == drawn()
    for point in first:
        asked.experiment(point)


@pytest.mark.parametrize("search", ["optuna", "hyperopt"])
def test_a_search_that_is_extended_knows_earlier_trials_and_draws_others(search: str) -> None:
    asked = read(search)
    how = sweep_settings.read_settings(asked)
    points = tune_setup.draw_points(how, asked, 3, [], 30)
    trials = make_trials(points)
    trials[0].status, trials[0].rounds = TrialStatus.FAILED, []
    rate = "trainer.learning_rate_scheduler.max_lr"
    method = tune_setup.make_searcher(how, asked, 7, trials)
    drawn = suggest(asked, method, 5)
    assert drawn == suggest(asked, tune_setup.make_searcher(how, asked, 7, trials), 5)
    assert not [point for point in drawn if point in points]
    mean = fmean(point[rate] for point in drawn)  # type: ignore[misc]
    assert mean > fmean(point[rate] for point in points)  # it has learned that large rates are good


def test_random_search_continues_its_sequence_without_what_was_tried() -> None:
    asked = read()
    how = sweep_settings.read_settings(asked)
    whole = tune_setup.draw_points(how, asked, 3, [], 9)
    tried = make_trials([whole[1], *whole[:5]])
    assert tune_setup.draw_points(how, asked, 3, tried, 4) == whole[5:]
    generator = tune_setup.make_generator(how, asked, 3, 1)
    spec = {"config": tune_setup.make_domains(asked)}
    assert whole[0] == asked.decode(next(generate_variants(spec, random_state=generator._random_state))[1]["config"])


def test_a_space_that_is_used_up_is_not_searched_twice() -> None:
    section = "  parameters:\n    trainer.batch_size: {space: grid_search, values: [8, 16]}\n"
    section += "    trainer.epochs: {space: choice, categories: [1, 2]}\n"
    asked = space.read_space(parse_document(f"{BASE}hyperopt:\n{section}", "f.yaml"), "f")
    how = sweep_settings.read_settings(asked)
    points = tune_setup.draw_points(how, asked, 3, [], 4)
    assert sorted((point["trainer.batch_size"], point["trainer.epochs"]) for point in points) == [
        (8, 1),
        (8, 2),
        (16, 1),
        (16, 2),
    ]
    trials = [Trial(name="t01", parameters=point, seed=3) for point in points]
    with pytest.raises(InputError, match="only 1 other point"):
        tune_setup.draw_points(how, asked, 3, trials[:3], 2)
    with pytest.raises(InputError, match="no other point to try, and 1 more"):
        tune_setup.draw_points(how, asked, 3, trials, 1)


def test_a_scheduler_with_impossible_options_is_refused() -> None:
    asked = read()
    how = sweep_settings.read_settings(asked)
    with pytest.raises(InputError, match="scheduler"):
        tune_setup.make_scheduler(
            sweep_settings.SweepSettings(
                **{**vars(how), "scheduler": "async_hyperband", "scheduler_options": {"max_t": 0}}
            )
        )
