import pytest

from pneumo.pipeline.release.gate import Gate, read_gate
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import CONFIGS


def test_the_file_in_the_repository_says_the_defaults():
    assert read_gate(CONFIGS / "gate.yaml") == Gate()


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_gate() == Gate()
    (tmp_path / "ludwig_configs").mkdir()
    (tmp_path / "ludwig_configs" / "gate.yaml").write_text("margins: {auroc: 0.1}\n")
    assert read_gate().margins.auroc == 0.1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("confidence: 0.95\nmargin: {}\n", "gate.yaml:2: unknown key 'margin'; the keys are aliases, split"),
        ("margins:\n  auroc: 0.01\n  recall: 1\n", "gate.yaml:3: unknown key 'margins.recall'; the keys are auroc"),
        ("seed: 0\nconfidence: 2\n", "gate.yaml:2: confidence: Input should be less than 1"),
        ("margins:\n  sensitivity: -1\n", "gate.yaml:2: margins.sensitivity: "),
        ("limits:\n  sensitivity: 0.9\n  recall: 0.9\n", "gate.yaml:3: limits.recall: Input should be 'auroc'"),
        ("limits: {auroc: 90}\n", "gate.yaml:1: limits.auroc: Input should be less than 1"),
        ("undecided: maybe\n", "gate.yaml:1: undecided: "),
        ("aliases: [champion, 1 2]\n", "gate.yaml:1: aliases.1: "),
        ("seed: [\n", "gate.yaml:2: cannot be read as YAML"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, text, said):
    (tmp_path / "gate.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_gate(tmp_path / "gate.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_was_named_must_be_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_gate(tmp_path / "gate.yaml")


def test_config_validate_knows_the_gate_from_a_config(pneumo, tmp_path):
    assert pneumo("config", "validate", CONFIGS / "gate.yaml").code == 0
    (tmp_path / "gate.yaml").write_text("margin: 1\n")
    outcome = pneumo("config", "validate", tmp_path / "gate.yaml")
    assert outcome.code == 2
    assert "gate.yaml:1: unknown key 'margin'" in outcome.err
