"""YAML that people write: plain values, and limits that no trick gets around."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.contracts.yaml_text import MAX_BYTES, explain_yaml_error, parse_yaml, read_yaml

ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {b: x, c: x}\n" + "".join(f"a{n}: &a{n}\n  <<: [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_plain_values_are_read_as_pyyaml_reads_them(values):
    text = yaml.safe_dump(values, allow_unicode=True)
    assert parse_yaml(text) == yaml.safe_load(text)
    assert parse_yaml(text.encode()) == yaml.safe_load(text)


def test_ordinary_anchors_aliases_and_merge_keys_work():
    text = "base: &base {lr: 0.1, steps: &steps [1, 2]}\nmine: {<<: *base, lr: 0.2}\nagain: *steps\n"
    base = {"lr": 0.1, "steps": [1, 2]}
    assert parse_yaml(text) == {"base": base, "mine": base | {"lr": 0.2}, "again": [1, 2]}


def test_an_alias_means_the_last_anchor_before_it():
    assert parse_yaml("[&a 1, *a, &a 2, *a]") == [1, 1, 2, 2]


def test_an_empty_document_is_none():
    assert parse_yaml("") is None
    assert parse_yaml("# nothing\n") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (ALIASES, r":6: .*more than 200,000 values"),
        (MERGES, r"more than 200,000 values"),
        ("a: &a [*a]", r":1: .*an anchor that contains itself"),
        ("a: &a\n  <<: *a", r":2: .*an anchor that contains itself"),
        ("[" * 100_000, r"nested deeper than 100 levels"),
        ("{a: " * 100_000, r"nested deeper than 100 levels"),
        ("- " * 100_000, r"nested deeper than 100 levels"),
        ("? " * 100_000, r"nested deeper than 100 levels"),
        ("x: 1\na: " + "1:" * 100_000 + "1", r":2: .*a number of more than 100 digits"),
        ("a: " + "9" * 10_000, r"a number of more than 100 digits"),
        ("a: 0x" + "f" * 10_000, r"a number of more than 100 digits"),
        ("a: " + "59:" * 200 + "1.5", r"a number of more than 100 digits"),
        ("a: 2026-99-99", r":1: .*not a valid timestamp"),
        ("a: !!bool maybe", r":1: .*not a valid bool"),
        ("a: !!int ''", r":1: .*not a valid int"),
        ("a: !!timestamp noon", r":1: .*not a valid timestamp"),
        ("a: !!python/object/apply:os.getcwd []", r":1: .*could not determine a constructor"),
        ("a: 1\n---\nb: 2", r":2: .*expected a single document"),
        ("a: *b", r"undefined alias"),
        ("? [a]\n: b", r"unhashable key"),
        ("a: \0", r"control characters"),
        ("a: \ud800", r"UTF-8"),
        ("%TAG ! " + "x" * 10_000 + "\n---\na: !b 1", r"could not determine a constructor"),
        ("#" * (MAX_BYTES + 1), r"larger than 4,000,000 bytes"),
    ],
)
def test_what_would_take_memory_or_time_is_one_short_line(text, problem):
    with pytest.raises(yaml.YAMLError) as raised:
        parse_yaml(text)
    number, message = explain_yaml_error(raised.value, text)
    line = f"mine.yaml:{number}: {message}"
    assert line.startswith("mine.yaml:")
    assert re.search(problem, line)
    assert len(line) < 300
    assert "\n" not in line


def test_no_more_of_a_file_is_read_than_is_parsed(tmp_path):
    path = tmp_path / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    assert len(read_yaml(path)) == MAX_BYTES + 1


def test_numbers_of_a_usual_length_stay_numbers():
    assert parse_yaml("[1.0e+300, -0.5, 0x1F, 1:30, .inf, 123456789012345678901234567890]") == [
        1e300,
        -0.5,
        31,
        90,
        math.inf,
        123456789012345678901234567890,
    ]


def test_validating_bombs_takes_under_200_mb_and_exits_2(tmp_path: Path):
    paths = []
    for number, text in enumerate([ALIASES, MERGES, "- a\n" * 999_999]):
        paths.append(tmp_path / f"bomb{number}.yaml")
        paths[-1].write_text(text, encoding="utf-8")
    script = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-m', 'pneumo', 'config', 'validate', *sys.argv[1:]], stderr=-1)\n"
        "told = done.stderr.count(b'more than 200,000 values'), done.stderr.count(b'\\n')\n"
        "print(done.returncode, *told, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    told = subprocess.run([sys.executable, "-c", script, *map(str, paths)], capture_output=True, text=True, check=True)
    code, values, lines, kilobytes = map(int, told.stdout.split())
    assert (code, values, lines) == (2, 3, 3)
    assert kilobytes < 200_000
