"""All errors of a config at once: each with its place, none twice, and never a traceback."""

import copy
import datetime
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pneumo.pipeline import config
from pneumo.pipeline.cli import app
from pneumo.pipeline.config.document import Document, parse_document
from pneumo.pipeline.config.problems import ConfigError
from pneumo.pipeline.config.rules import experiment_rules
from pneumo.pipeline.config.rules.class_rules import check_classes
from pneumo.pipeline.sweep.sweep_settings import check_search
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import CONFIGS

SMOKE = (CONFIGS / "smoke.yaml").read_text(encoding="utf-8")
CATEGORY = SMOKE.replace(
    "    type: binary\n    preprocessing: {fallback_true_label: PNEUMONIA}\n", "    type: category\n"
)
HYPEROPT = """hyperopt:
  goal: maximize
  metric: roc_auc
  output_feature: label
  parameters:
    trainer.batch_size: {space: choice, categories: [16, 32]}
    image.encoder.conv_layers.0.out_channels: {space: randint, lower: 4, upper: 32}
    trainer.optimizer.weight_decay: {space: loguniform, lower: 1.0e-4, upper: 0.1}
  search_alg: {type: random, points_to_evaluate: []}
  executor: {num_samples: 4, scheduler: {type: async_hyperband, grace_period: 2}}
"""


def errors_of(text: str) -> list[str]:
    """The problems of a config, as `line: message`."""
    document = problems = None
    try:
        document = parse_document(text, "f.yaml")
    except ConfigError as error:
        document, problems = error.document, error.problems
        if document is None:
            return [f"{each.line}: {each.message}" for each in problems]
    try:
        config.build_experiment(document, "f", [check_search], problems or ())
    except ConfigError as error:
        return [f"{each.line}: {each.message}" for each in error.problems]
    return []


def test_every_error_of_a_file_is_shown_once_in_order_of_lines() -> None:
    text = """input_features:
  - name: image
    type: image
    preprocessing: {hight: 64, width: "64", num_channels: 2}
    encoder:
      type: stacked_cnn
      conv_layers:
        - {out_channels: 0, kernel_sise: 3}
        - 3
output_features:
  - name: label
    type: binary
trainer:
  epochs:25
  batch_size: 1.5
  batch_size: 16
  lr: 0.1
  weight_decay: 0.1
  optimizer: {type: adam_w, weight_decay: x}
  learning_rate_scheduler: {decay:one_cycle, max_lr: .nan}
  validation_metric: auc_roc
decisions: {threshold: best, coverage: 80}
hyperopt:
  output_feature: lable
  goal: maximise
  parameters:
    trainer.learning_rate: {space: loguniform, lower: 0, upper: 1}
    trainer.epochs: {space: choice, categories: []}
  executor: {scheduler: {type: asha, metric: loss}}
"""
    expected = [
        (4, "unknown key 'hight'"),
        (4, "preprocessing.width must be a whole number"),
        (8, "out_channels is 0"),
        (8, "unknown key 'kernel_sise'"),
        (9, "conv_layers.1 must be a mapping, not 3"),
        (14, "a space is missing after the colon; write epochs: 25"),
        (16, "duplicate key 'batch_size'; the first is in line 15"),
        (17, "unknown key 'lr' under trainer; did you mean 'learning_rate'?"),
        (18, "unknown key 'weight_decay' under trainer; it belongs under trainer.optimizer"),
        (19, "did you mean 'adamw'?"),
        (19, "trainer.optimizer.weight_decay must be a number, not 'x'"),
        (20, "a space is missing after the colon: decay: one_cycle"),
        (20, "max_lr is nan"),
        (21, "trainer.validation_metric is 'auc_roc'; did you mean 'roc_auc'?"),
        (22, "decisions.coverage is 80"),
        (24, "hyperopt.output_feature is 'lable'"),
        (25, "did you mean 'maximize'?"),
        (27, "'lower' must be more than 0"),
        (28, "needs 'categories', a list of values"),
        (29, "write async_hyperband"),
        (29, "repeats hyperopt.metric"),
    ]
    found = errors_of(text)

    lines = [int(each.partition(":")[0]) for each in found]
    assert lines == sorted(lines)
    assert len(set(found)) == len(found)
    for line, message in expected:
        assert any(each.startswith(f"{line}: ") and message in each for each in found), (line, message, found)
    # num_channels is told, the peak that one_cycle lacks and the threshold are not: they follow from others
    assert len(found) == len(expected) + sum("num_channels" in each or "threshold" in each for each in found)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\ntrainer:\n\tepochs: 25\n", 3, "a tab in the indentation; indent with spaces"),
        ("a: 1\ntrainer:\n  epochs: 25\n\tbatch: 3\n\tx: 1\n", 4, "a tab in the indentation, as in 1 more lines"),
        ("a:\r\n\tb: 1\r\n", 2, "a tab in the indentation"),
        ("trainer:\n  epochs:25\n  batch: 3\n", 2, "a space is missing after the colon; write epochs: 25"),
        ("trainer:\n  a: 1\n  epochs:25\nx: 1\n", 3, "a space is missing after the colon; write epochs: 25"),
        ("trainer:\n  - a: 1\n    epochs:25\n    x: 1\n", 3, "a space is missing after the colon; write epochs: 25"),
        ("trainer\n  epochs: 25\n", 1, "a colon is missing; write trainer:"),
        ("trainer:\n  a: 1\n  epochs 25\n  b: 3\n", 3, "a colon is missing; write epochs: 25"),
        ("trainer:\n  epochs: 25\n   batch: 3\n", 3, "indented deeper than the line above"),
        ("trainer:\n  epochs: 25\n batch: 3\n", 3, "the indentation fits no line above"),
        ("x: {a: 1, b: 2\ny: 3\n", 1, "the bracket that opens here is not closed"),
        ("x: [1, 2\ny: 3\n", 1, "the bracket that opens here is not closed"),
        ("x: {a: 1}}\ny: 3\n", 1, "text after the end of a value"),
        ("y: 3\nx: 'abc\n", 2, "the quote that begins here is not closed"),
        ("y: 3\nx: @abc\n", 2, "a value cannot begin with '@'; put it in quotes"),
        ('x: "C:\\data"\n', 1, "a backslash in double quotes; use single quotes"),
        ("x:\n  a: 1\n  - 2\n", 3, "a list entry among keys"),
        ("x:\n  - a\n  b: 1\n", 3, "a key in a list; begin each entry with '- '"),
        ("x: a: b\n", 1, "a colon inside a value; put the value in quotes"),
        ("a: 1\n<<<<<<< HEAD\nb: 1\n=======\nb: 2\n>>>>>>> x\n", 2, "a merge conflict; keep one side"),
        ("a: 1\nb: \x07\n", 2, "control characters are not allowed"),
        ("a: 1\na: 2\n", 2, "duplicate key 'a'; the first is in line 1"),
        ("a: 1\n? [b]\n: 2\n", 2, "a key must be a word"),
    ],
)
def test_a_fault_in_the_yaml_is_said_plainly_at_the_line_to_change(text: str, line: int, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document(text, "f.yaml")

    first = caught.value.problems[0]
    assert (first.place, first.line) == (f"f.yaml:{line}", line)
    assert message in first.message


def test_faults_with_an_evident_repair_hide_no_other_errors() -> None:
    text = SMOKE.replace("  epochs: 25", "  epochs:25").replace("  batch_size: 32", "  batch_size 32")
    text = text.replace("  early_stop: -1", "\tearly_stop: x").replace("learning_rate: 0.002", "learning_rat: 0.002")

    found = errors_of(text)

    assert [each.partition(": ")[2].removeprefix("cannot be read as YAML: ").partition(";")[0] for each in found] == [
        "a space is missing after the colon",
        "a colon is missing",
        "a tab in the indentation",
        "trainer.early_stop must be a whole number, not 'x'",
        "unknown key 'learning_rat' under trainer",
    ]


@pytest.mark.parametrize(
    ("find", "replace", "message"),
    [
        *(("epochs: 25", f"{word}: 25", "did you mean 'epochs'?") for word in ("n_epochs", "max_epochs", "num_epochs")),
        *(
            ("batch_size: 32", f"{word}: 32", "did you mean 'batch_size'?")
            for word in ("batchsize", "bs", "size_batch")
        ),
        ("learning_rate: 0.002", "lr: 0.002", "did you mean 'learning_rate'?"),
        ("early_stop: -1", "patience: -1", "did you mean 'early_stop'?"),
        *(("adamw", word, "did you mean 'adamw'?") for word in ("adam_w", "AdamW", "Adam-W")),
        *(
            ("early_stop: -1", f"early_stop: -1\n  validation_metric: {word}", "did you mean 'roc_auc'?")
            for word in ("auc_roc", "auroc", "auc", "rocauc", "ROC-AUC")
        ),
        ("early_stop: -1", "early_stop: -1\n  weight_decay: 1", "it belongs under trainer.optimizer"),
        ("early_stop: -1", "early_stop: -1\n  weight_decy: 1", "unknown key 'weight_decy' under trainer"),
        ("trainer:\n", "encoder: stacked_cnn\ntrainer:\n", "'encoder'; it belongs under input_features.0"),
        ("early_stop: -1", "early_stop: -1\n  height: 64", "it belongs under input_features.0.preprocessing"),
        ("batch_size: 32", "batch_size: 32\n  bs: 16", "did you mean 'batch_size'? It is there already"),
        ("epochs: 25", 'epochs: "25"', "must be a whole number, not '25' (write 25)"),
        ("epochs: 25", "epochs: 25.0", "must be a whole number, not 25.0 (write 25)"),
        ("epochs: 25", "epochs: 1e2", "must be a whole number, not '1e2' (write 100)"),
        ("learning_rate: 0.002", 'learning_rate: "25"', "(the quotes make it text; write 25)"),
        ("learning_rate: 0.002", "learning_rate: 2e-3", "(YAML reads it as text; write 2.0e-3)"),
        ("decay: one_cycle,", "decay:one_cycle,", "a space is missing after the colon: decay: one_cycle"),
        ("type: adamw,", "type adamw,", "a colon is missing: type: adamw"),
        (
            "optimizer: {type: adamw, weight_decay: 0.01}",
            "optimizer: 2026-01-01",
            "is read as a date; put it in quotes",
        ),
        (
            "trainer:\n",
            "combiner: {type: concat, bias_initializer: xavier}\ntrainer:\n",
            "did you mean 'xavier_",
        ),
        ("trainer:\n", "combiner: {type: concat, bias_initializer: 3}\ntrainer:\n", "choose from uniform, normal"),
        ("trainer:\n", "combiner: {type: concat, bias_initializer: {type: ones_}}\ntrainer:\n", "did you mean 'ones'?"),
        ("num_channels: 1", "num_channels: true", "num_channels must be a whole number"),
    ],
)
def test_a_wrong_word_leads_to_the_right_one(find: str, replace: str, message: str) -> None:
    assert find in SMOKE
    found = errors_of(SMOKE.replace(find, replace))

    assert any(message in each for each in found), found


def test_a_consequence_of_an_error_is_left_out() -> None:
    for text in (
        SMOKE.replace("fallback_true_label: PNEUMONIA", "fallback_true_lable: PNEUMONIA"),
        SMOKE.replace("type: fixed", "tpye: fixed"),
        SMOKE.replace("trainer:\n", "trainr:\n"),
        SMOKE.replace("type: stacked_cnn", "type: stacked_cnnn"),
        SMOKE.replace("name: image", "nmae: image"),
        SMOKE.replace("max_lr:", "mx_lr:"),
    ):
        assert len(errors_of(text)) == 1, errors_of(text)


def test_a_section_under_a_misspelt_key_is_checked_too() -> None:
    found = errors_of(SMOKE.replace("trainer:\n", "trainr:\n").replace("epochs: 25", "epochs: x"))

    assert len(found) == 2


@pytest.mark.parametrize(
    ("weights", "messages"),
    [
        ("{A: 1.0, B: 2.0, C: 3}", []),
        ("{A: 1.0, b: 2.0, C: 3}", ["class_weights.b is no class of the data set; did you mean 'B'?"]),
        ("{A: 1.0, C: 3}", ["class_weights lacks B; give every class of the data set a weight"]),
        ("{A: 1.0, B: 2.0, C: 3, COVID: 1}", ["class_weights.COVID is no class of the data set; choose from A, B, C"]),
    ],
)
def test_class_weights_must_be_those_of_the_data_set(weights: str, messages: list[str]) -> None:
    loss = f"    loss: {{type: softmax_cross_entropy, class_weights: {weights}}}\n"
    document = parse_document(CATEGORY.replace("    type: category\n", f"    type: category\n{loss}"), "f.yaml")
    assert config.build_experiment(document, "f").kind == "category"

    found = [each.message for each in check_classes(document, ["A", "B", "C"])]

    assert [each.removeprefix("output_features.0.loss.") for each in found] == messages


@pytest.mark.parametrize("weights", ["{A: x}", "{A: 0}", "{A: [1]}", "{A: .nan}", "{A: true}"])
def test_class_weights_that_are_no_numbers_are_refused_without_a_data_set(weights: str) -> None:
    loss = f"    loss: {{type: softmax_cross_entropy, class_weights: {weights}}}\n"

    assert len(errors_of(CATEGORY.replace("    type: category\n", f"    type: category\n{loss}"))) == 1


def test_class_names_that_look_like_numbers_stay_text() -> None:
    loss = "    loss: {type: softmax_cross_entropy, class_weights: {0: 1.0, yes: 2.0, 1.5: 3.0}}\n"
    document = parse_document(CATEGORY.replace("    type: category\n", f"    type: category\n{loss}"), "f.yaml")

    assert list(document.get("output_features.0.loss.class_weights")) == ["0", "yes", "1.5"]
    assert [each.line for each in check_classes(document, ["0", "yes", "2"])] == [18, 18]


def validate(*arguments: object) -> tuple[int, list[Any], str]:
    """Exit code, JSON document and error text of `pneumo config validate --json`."""
    result = CliRunner().invoke(app, ["config", "validate", *map(str, arguments), "--json"])
    assert result.exception is None or isinstance(result.exception, InputError | SystemExit)
    return result.exit_code, json.loads(result.stdout), str(result.exception or "")


def test_every_file_gets_its_verdict_even_beside_one_that_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(document: Document) -> None:
        if document.name.endswith("crash.yaml"):
            raise RuntimeError("boom")

    texts = {
        "good": SMOKE,
        "crash": SMOKE,
        "bad": SMOKE.replace("epochs: 25", "epochs: x"),
        "gate": "split: tset\nx: 1\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    files = [tmp_path / f"{name}.yaml" for name in (*texts, "latin", "missing")]
    monkeypatch.setattr("pneumo.pipeline.config.experiment.RULES", (*experiment_rules.RULES, crash))

    code, verdicts, message = validate(*files)

    assert code != 0
    found = {Path(each["file"]).stem: each["errors"] for each in verdicts}
    assert found["good"] == []
    assert [each["message"] for each in found["crash"]] == [
        "pneumo failed to check it (RuntimeError: boom); please report that"
    ]
    assert [(each["line"], each["path"]) for each in found["bad"]] == [(22, "trainer.epochs")]
    assert [each["line"] for each in found["gate"]] == [1, 2]
    assert [(each["line"], each["message"]) for each in found["latin"]] == [
        (2, "cannot be read as text: it is not UTF-8")
    ]
    assert [each["message"] for each in found["missing"]] == ["no such file"]
    assert len(message.splitlines()) == 6


def test_an_error_of_a_config_can_be_sent_between_processes() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_document("a: 1\na: 2\nb: 1\nb: 2\n", "f.yaml")

    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_all_overrides_that_are_wrong_are_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(SMOKE.replace("epochs: 25", "epochs: x"), encoding="utf-8")

    with pytest.raises(ConfigError) as caught:
        config.load_config(file, ["trainer.batch_size", "a=[", "trainer.lr=0.1", "trainer.early_stop=3"])

    assert [each.place.replace(str(file), "mine.yaml") for each in caught.value.problems] == [
        "-o trainer.batch_size",
        "-o a=[",
        "-o trainer.lr",
        "mine.yaml:22",
    ]


BASES = [
    *(yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(CONFIGS.glob("[!g]*.yaml"))),
    yaml.safe_load(CATEGORY),
    yaml.safe_load(SMOKE + HYPEROPT),
    yaml.safe_load(SMOKE + HYPEROPT.replace("metric", "#metric").replace("goal", "#goal")),
]
DEEP: object = 1
for _ in range(60):
    DEEP = [DEEP] if isinstance(DEEP, dict) else {"a": DEEP}
VALUES = [
    *(
        None,
        True,
        0,
        -1,
        7,
        10**30,
        -(10**99),
        1e300,
        float("nan"),
        float("inf"),
        0.5,
        "25",
        "1e-3",
        "auto",
        "text",
        "",
    ),
    *(
        [],
        {},
        [1, "a"],
        {"type": "x"},
        {"a": None},
        [[]],
        [{}],
        {1: 2, None: 3},
        datetime.date(2026, 1, 1),
        b"x",
    ),
    *(DEEP, "a" * 2000, "epochs:25", {"space": "choice", "categories": [1]}, {"type": ["a"]}, {"type": {}}),
]


def edit_value(draw: st.DrawFn, data: dict[str, Any]) -> None:
    """Change one value or key somewhere below the only key of `data`, which is empty."""
    parent: Any = data
    key: Any = ""
    for _ in range(draw(st.integers(0, 6))):
        if not isinstance(parent[key], dict | list) or not parent[key]:
            break
        parent = parent[key]
        key = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else range(len(parent))))
    value, is_root = parent[key], parent is data
    if isinstance(value, dict):
        shaped: Any = list(value)
    else:
        shaped = dict(enumerate(value)) if isinstance(value, list) else [value]
    choices = [copy.deepcopy(draw(st.sampled_from(VALUES))), str(value), shaped, [value], {"a": value}, {1: value}]
    how = draw(st.sampled_from(["value", "value", "delete", "misspell", "key"]))
    if how == "key" and isinstance(value, dict):
        value[draw(st.sampled_from([1, True, None, "type", "name", "a:b", "trainer", 1.5]))] = 3
    elif how in ("delete", "misspell") and isinstance(parent, dict) and not is_root:
        del parent[key]
        word, place = str(key), draw(st.integers(0, len(str(key))))
        if how == "misspell":
            parent[draw(st.sampled_from([word[:place] + word[place + 1 :], word.upper(), f"{word}x"]))] = value
    else:
        parent[key] = draw(st.sampled_from(choices))


def edit_line(draw: st.DrawFn, text: str) -> str:
    lines = text.splitlines() or [""]
    row = draw(st.integers(0, len(lines) - 1))
    line = lines[row]
    place, sign = draw(st.integers(0, len(line))), draw(st.sampled_from("{}[]'\"@:&*#!|>%-?,\t\0é"))
    lines[row] = draw(
        st.sampled_from(
            [
                *("\t" + line, "\t" + line.lstrip(), " " + line, line[1:], "", f"{line}\n{line}"),
                *(line.replace(": ", ":"), line.replace(":", ""), line[:place], line[:place] + sign + line[place:]),
            ]
        )
    )
    return "\n".join(lines) + "\n"


@st.composite
def edited_configs(draw: st.DrawFn) -> str:
    data: dict[str, Any] = {"": copy.deepcopy(draw(st.sampled_from(BASES)))}
    for _ in range(draw(st.integers(0, 3))):
        edit_value(draw, data)
    text = yaml.safe_dump(data[""], sort_keys=False)
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        text = edit_line(draw, text)
    return text


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(edited_configs())
def test_any_edit_of_a_valid_config_is_valid_or_told_with_its_places(text: str) -> None:
    try:
        document = parse_document(text, "any.yaml")
    except ConfigError as error:
        check_problems(error, text)
        if error.document is None:
            return
        document = error.document
    try:
        config.build_experiment(document, "any", [check_search])
    except ConfigError as error:
        check_problems(error, text)


def check_problems(error: ConfigError, text: str) -> None:
    assert error.problems
    told = [(each.line, each.message) for each in error.problems]
    assert told == sorted(told, key=lambda each: each[0])
    assert len(set(told)) == len(told)
    for problem in error.problems:
        assert re.fullmatch(r"any\.yaml:\d+", problem.place)
        assert 1 <= problem.line <= text.count("\n") + 1
        assert "\n" not in problem.message
        assert len(problem.message) < 6000
