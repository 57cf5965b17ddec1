import pytest

from pneumo.pipeline.config.file_model import read_population
from pneumo.pipeline.data.public_sets import SETS
from pneumo.pipeline.project.scaffold import read_template
from pneumo.serving.contracts.errors import InputError

AGES = "ages: give the lowest and the highest age in years, such as [1, 5]"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("ages: 1-5\nview: AP", [f"1: {AGES}", "2: unknown key 'view'; the keys are subjects, ages, sex, views"]),
        ("sex: all\nages: [5, 1]", [f"2: {AGES}"]),
        ("ages: [1, 500]", [f"1: {AGES}"]),
        ("ages: [true, 5]", [f"1: {AGES}"]),
        ("ages: [.nan, 5]", [f"1: {AGES}"]),
        (
            "sites: here\nviews:\n- AP\n- side",
            ["1: sites: Input should be a valid list", "4: views.1: Input should be"],
        ),
        ('period: "2016\\n2019"', ["1: period: give one line of at most 300 printable characters"]),
        ("sites: ['\u202e']", ["1: sites.0: give one line"]),
        ("ages:", ["1: states nothing; give one or more of subjects, ages"]),
        ("", ["1: states nothing"]),
        ("ages: [1, 5]\nages: [1, 5]", ["2: duplicate key 'ages'"]),
    ],
)
def test_each_fault_of_a_population_is_named_with_its_line(tmp_path, text, problems):
    path = tmp_path / "population.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_population(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(problems)
    for line, problem in zip(lines, problems, strict=True):
        assert line.startswith(f"{path}:{problem}")


def test_a_name_that_is_neither_a_file_nor_a_public_set_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no readable text file, nor a public data set \(kermany, pneumoniamnist\)"):
        read_population(tmp_path / "kermani")


def test_the_file_of_a_new_project_can_be_filled_in_as_it_stands(tmp_path):
    path = tmp_path / "population.yaml"
    prose, _, fields = read_template("population").partition("\n\n")
    path.write_text(prose, encoding="utf-8")
    with pytest.raises(InputError, match=":1: states nothing"):
        read_population(path)
    path.write_text(fields.replace("# ", "", 1).replace("\n# ", "\n"), encoding="utf-8")
    population = read_population(path)
    assert all(getattr(population, name) for name in type(population).model_fields)


def test_a_public_set_brings_its_own():
    assert read_population("kermany") is SETS["kermany"].population
    assert "children of 1 to 5 years" in read_population("kermany").describe()
