import pytest

from pneumo.serving.contracts.population import Population, describe_training


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (
            {"ages": (1, 5), "views": ["AP"], "sites": ["Guangzhou"]},
            "trained on anterior-posterior chest X-rays of children of 1 to 5 years (Guangzhou)",
        ),
        ({"ages": (18, 95), "sex": "46% female"}, "trained on chest X-rays of adults of 18 to 95 years (46% female)"),
        (
            {"ages": (0.5, 90), "views": ["PA", "lateral"], "period": "2016 to 2019"},
            "trained on posterior-anterior and lateral chest X-rays of patients of 0.5 to 90 years (2016 to 2019)",
        ),
        ({"subjects": "miners"}, "trained on chest X-rays of miners"),
        (None, "trained on images of a population that is not stated"),
    ],
)
def test_a_population_is_named_in_words(stated, words):
    assert describe_training(stated and Population(**stated)) == words


def test_a_part_that_is_left_out_is_not_stated():
    facts = dict(Population(ages=(1, 5), views=["AP", "PA"]).list_facts())
    assert (facts["ages"], facts["views"], facts["reference standard"]) == ("1 to 5 years", "AP, PA", "not stated")


@pytest.mark.parametrize(("years", "excluded"), [(0.9, True), (1, False), (5.9, False), (6, True), (64, True)])
def test_an_age_counts_until_the_next_birthday(years, excluded):
    assert Population(ages=(1, 5)).excludes_age(years) is excluded
    assert not Population(sex="all").excludes_age(years)
