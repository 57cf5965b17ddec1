"""What an editor with yaml-language-server offers, shows and marks in the configs that are shipped."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pneumo.pipeline.config.schema import read_ludwig_schema
from pneumo.pipeline.project import scaffold
from tests.support.language_server import Editor, open_editor
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

SMOKE = (ROOT / "ludwig_configs" / "smoke.yaml").read_text(encoding="utf-8")
SWEEP = "hyperopt:\n  parameters:\n    trainer.batch_size: {space: loguniform, lowr: 8}\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of configs of a new project, far from the checkout."""
    folder = tmp_path_factory.mktemp("editor") / "project"
    scaffold.create_project(folder)
    return folder / "ludwig_configs"


@pytest.fixture(scope="module")
def editor() -> Iterator[Editor]:
    with open_editor() as opened:
        yield opened


def place(text: str, words: str) -> tuple[int, int]:
    """Line and column of the end of some words, from 0."""
    before = text[: text.index(words) + len(words)]
    return before.count("\n"), len(before.rpartition("\n")[2])


def test_no_shipped_config_has_a_mark(editor: Editor, project: Path) -> None:
    for path in sorted(project.glob("*.yaml")):
        assert editor.open(path, path.read_text(encoding="utf-8")) == [], path


def test_encoders_of_ludwig_and_pneumo_are_offered(editor: Editor, project: Path) -> None:
    text = SMOKE.replace("type: stacked_cnn", "type: ")
    editor.open(project / "smoke.yaml", text)

    offered = editor.complete(project / "smoke.yaml", *place(text, "encoder:\n      type: "))

    image = read_ludwig_schema()["properties"]["input_features"]["items"]["allOf"][0]["then"]["properties"]
    assert set(offered) == set(image["encoder"]["properties"]["type"]["enum"])
    assert {"stacked_cnn", "timm", "efficientnet_lite", "ensemble"} <= set(offered)


def test_keys_of_the_chosen_kind_are_offered(editor: Editor, project: Path) -> None:
    text = SMOKE.replace("optimizer: {type: adamw, weight_decay: 0.01}", "optimizer:\n    type: sgd\n    ")
    editor.open(project / "smoke.yaml", text)

    offered = editor.complete(project / "smoke.yaml", *place(text, "type: sgd\n    "))

    assert {"momentum", "nesterov", "weight_decay"} <= set(offered)
    assert not {"amsgrad", "betas"} & set(offered)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("trainer:\n  epoch", "Passes over the training images."),
        ("max_l", "Peak of one"),
        ("    encode", "The network that turns an image into features."),
        ("fallback_true_labe", "The positive class"),
        ("- {out_channel", "Channels that the layer gives."),
    ],
)
def test_a_key_tells_its_meaning(editor: Editor, project: Path, words: str, text: str) -> None:
    editor.open(project / "smoke.yaml", SMOKE)

    assert text in editor.hover(project / "smoke.yaml", *place(SMOKE, words))


@pytest.mark.parametrize(
    ("name", "text", "words", "message"),
    [
        ("smoke.yaml", SMOKE.replace("epochs: 25", "epochz: 25"), "epochz", "Property epochz is not allowed."),
        ("smoke.yaml", SMOKE.replace("type: adamw", "type: adamq"), "adamq", "Value is not accepted."),
        ("smoke.yaml", SMOKE.replace("epochs: 25", "epochs: many"), "many", "Incorrect type."),
        ("smoke.yaml", SMOKE.replace("norm: batch", "nrom: batch", 1), "nrom", "Property nrom is not allowed."),
        ("smoke.yaml", SMOKE + SWEEP, "lowr", "Property lowr is not allowed."),
        ("gate.yaml", "undecide: pass\n", "undecide", "Property undecide is not allowed."),
    ],
)
def test_a_typo_gets_a_mark(editor: Editor, project: Path, name: str, text: str, words: str, message: str) -> None:
    head = (project / name).read_text(encoding="utf-8").splitlines(keepends=True)[0]
    text = text if text.startswith(head) else head + text
    marks = {mark["message"].split('"')[0].strip(): mark["range"] for mark in editor.open(project / name, text)}

    found = next(span for told, span in marks.items() if told.startswith(message))
    assert (found["end"]["line"], found["end"]["character"]) == place(text, words)


def test_without_its_schema_a_typo_gets_no_mark(editor: Editor, project: Path, tmp_path: Path) -> None:
    """The marks come from the file that the first line names, beside the config."""
    shutil.copyfile(project / "smoke.yaml", tmp_path / "smoke.yaml")

    marks = editor.open(tmp_path / "smoke.yaml", SMOKE.replace("epochs: 25", "epochz: 25"))

    assert not any("epochz" in mark["message"] for mark in marks)
