"""Configs as Ludwig's users have them: completed with a remark each, or refused with every reason."""

import json
import re
from pathlib import Path

import pytest
import yaml

from pneumo.pipeline import config
from pneumo.pipeline.config.completion import TORCHVISION, find_positive
from pneumo.pipeline.config.document import parse_document
from pneumo.pipeline.config.schema import read_ludwig_schema
from pneumo.pipeline.data.manifest import Dataset, Split, read_dataset
from pneumo.pipeline.training.run import complete_experiment
from pneumo.serving.contracts.errors import InputError
from tests.pipeline.conftest import build_run
from tests.support.ludwig_configs import IMAGE_EXAMPLES
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "reference" / "ludwig-configs.md").read_text(encoding="utf-8")
PLAIN = """
input_features:
  - {name: scan, type: image}
output_features:
  - {name: label, type: binary}
trainer: {epochs: 2}
"""


def rows(*sections: str) -> list[tuple[str, str]]:
    """Return change and result of each row under these headings of the page."""
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    texts = dict(zip(parts[1::2], parts[2::2], strict=True))
    return [row for name in sections for row in re.findall(r"^\| `(.+?)` \| (.+) \|$", texts[name], flags=re.MULTILINE)]


def make_dataset(folder: Path, *classes: str) -> Dataset:
    """Write a data set of 16-pixel images."""
    return read_dataset(Path(build_run(folder, classes, images=30).info().data))


@pytest.fixture(scope="module")
def two_classes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(tmp_path_factory.mktemp("two"), "NORMAL", "PNEUMONIA")


@pytest.mark.parametrize(("change", "result"), rows("Completed or replaced", "Ignored by Ludwig"))
def test_what_the_page_says_is_remarked_on(two_classes: Dataset, change: str, result: str) -> None:
    document = parse_document(PLAIN, "mine.yaml").override([change])

    experiment = complete_experiment(config.build_experiment(document, "mine"), two_classes)

    steps = 2 * -(-len(two_classes.select(Split.TRAIN)) // 64)
    assert any(result.replace("{steps}", str(steps)) in remark for remark in experiment.remarks), experiment.remarks
    assert all(f"# {remark}\n" in experiment.to_yaml() for remark in experiment.remarks)


@pytest.mark.parametrize(("change", "reason"), rows("Refused"))
def test_what_the_page_says_is_refused(two_classes: Dataset, change: str, reason: str) -> None:
    document = parse_document(PLAIN, "mine.yaml").override([change])

    with pytest.raises(InputError) as caught:
        complete_experiment(config.build_experiment(document, "mine"), two_classes)

    assert reason in str(caught.value)


@pytest.mark.parametrize("text", IMAGE_EXAMPLES.values(), ids=IMAGE_EXAMPLES)
def test_image_examples_of_ludwigs_repository_are_taken(text: str) -> None:
    experiment = config.build_experiment(parse_document(text, "mine.yaml"), "mine")

    assert experiment.remarks
    assert experiment.config["input_features"][0]["preprocessing"]["mode"] == "eager"


def test_a_completed_config_needs_no_more_completion(two_classes: Dataset, tmp_path: Path) -> None:
    once = config.build_experiment(parse_document(PLAIN, "mine.yaml"), "mine").complete(two_classes)
    file = tmp_path / "config.yaml"
    file.write_text(once.to_yaml(), encoding="utf-8")

    again = config.load_config(file).complete(two_classes)

    assert again.remarks == ()
    assert again.config == once.config
    assert again.preparation(two_classes.info).model_dump()["height"] == 16


def test_all_reasons_of_all_parts_are_told_at_once() -> None:
    text = PLAIN.replace("type: image}", "type: image, preprocessing: {num_channels: 4}, encoder: {type: squeezenet}}")
    document = parse_document(text.replace("epochs: 2", "epochs: 0, batch_size: many, learning_rate: 7"), "mine.yaml")

    with pytest.raises(InputError) as caught:
        config.build_experiment(document, "mine")

    for word in ("num_channels must be 1, or 3", "squeezenet", "epochs is 0", "batch_size must", "learning_rate is 7"):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (["NORMAL", "PNEUMONIA"], "PNEUMONIA"),
        (["COVID", "Pneumonia"], "Pneumonia"),
        (["No Finding", "Effusion"], "Effusion"),
        (["0", "1"], "1"),
        (["BACTERIA", "VIRUS"], None),
        (["healthy", "normal"], None),
    ],
)
def test_the_positive_class_is_the_one_with_a_finding_if_that_can_be_known(classes: list[str], positive: str) -> None:
    assert find_positive(classes) == positive


def test_two_names_are_asked_about_if_neither_tells_which_is_positive(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "BACTERIA", "VIRUS")
    experiment = config.build_experiment(parse_document(PLAIN, "mine.yaml"), "mine")

    with pytest.raises(InputError, match=r"which class is the positive one.*fallback_true_label: BACTERIA or VIRUS"):
        experiment.complete(dataset)


def test_a_binary_label_of_three_classes_is_led_to_a_category(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, "BACTERIA", "NORMAL", "VIRUS")
    experiment = config.build_experiment(parse_document(PLAIN, "mine.yaml"), "mine")

    with pytest.raises(InputError, match="the data set has 3: use type: category"):
        experiment.complete(dataset)
    category = parse_document(PLAIN.replace("binary", "category"), "mine.yaml")
    assert config.build_experiment(category, "mine").complete(dataset).kind == "category"


def test_every_torchvision_encoder_of_ludwig_has_its_network() -> None:
    feature = read_ludwig_schema()["properties"]["input_features"]["items"]["allOf"][0]["then"]["properties"]
    kinds = {
        branch["if"]["properties"]["type"]["const"]
        for branch in feature["encoder"]["allOf"]
        if "model_variant" in branch["then"]["properties"]
    }

    assert kinds == {*TORCHVISION, "squeezenet"}


def test_remarks_are_in_the_order_of_the_steps_and_json() -> None:
    remarks = config.build_experiment(parse_document(PLAIN, "mine.yaml"), "mine").remarks

    assert json.loads(json.dumps(remarks)) == list(remarks)
    assert remarks[0] == "mine.yaml:3: input_features.0.preprocessing.mode is eager: each image is decoded once"
    assert yaml.safe_load("\n".join(f"# {remark}" for remark in remarks)) is None
