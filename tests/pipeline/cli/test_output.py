"""Tables that can be copied, quoted commands, and the time that a command took."""

import io
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from pneumo.pipeline import cli
from pneumo.pipeline.cli.output import join_words, print_list, print_table
from pneumo.pipeline.cli.progress import count_bar
from pneumo.pipeline.project import doctor
from pneumo.pipeline.runs import reporter
from pneumo.serving.contracts.quantities import format_count
from tests.conftest import Outcome

STYLE = re.compile(r"\x1b\[[0-9;]*m")
PATH = "data/images/test/NORMAL/a-folder-with-a-rather-long-name/IM-0001-0001-0001.png"
REMARK = "a remark of many words that goes over several lines if the terminal is not as wide as the remark is long"


@pytest.fixture(params=[40, 80, 160])
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Width of the terminal, in columns."""
    monkeypatch.setattr("rich.console.Console.is_terminal", property(lambda _: True))
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("LINES", "25")
    return request.param


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_no_table_breaks_a_path(width: int, whole: int, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [[PATH, "NORMAL", "0.005", f"{PATH}, {PATH}"], [], [PATH, REMARK, "0.9", ""]]
    print_table(["image", "label", "p", "example of a group"], rows, whole=whole, right=["p"])
    print_list([["folder", PATH], ["remark", f"{REMARK} {PATH}"]])

    out = STYLE.sub("", capsys.readouterr().out)
    assert out.count(PATH) == 6
    assert set(REMARK.split()) <= {*out.split()}
    print_table(["image"], [[PATH]], file=(file := io.StringIO()))
    assert PATH in file.getvalue()


def test_what_is_narrow_keeps_to_the_width_of_the_terminal(width: int, capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["", "label"], [["a", REMARK]])
    assert max(map(len, STYLE.sub("", capsys.readouterr().out).splitlines())) <= width


def test_a_printed_command_can_be_pasted() -> None:
    words = ["pneumo", "promote", "runs of may/it's one"]
    assert shlex.split(join_words(*words)) == words


def test_one_is_singular() -> None:
    counts = [format_count(number, "image") for number in (0, 1, 2, 5216)]
    assert counts == ["0 images", "1 image", "2 images", "5,216 images"]
    assert format_count(2, "class", "classes") == "2 classes"


@pytest.mark.parametrize("long", [0.0, 1e9])
def test_the_time_of_a_long_command_is_told_at_its_end(
    pneumo: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], long: float
) -> None:
    monkeypatch.setattr(reporter, "LONG", long)
    monkeypatch.setattr(cli, "LONG", long)
    monkeypatch.setattr(doctor, "examine_environment", list)

    assert ("done in 0." in pneumo("doctor").err.splitlines()[-1]) == (not long)
    with count_bar("drawing", 3) as bar:
        bar.advance(3)
    assert ("drawing: 0.0 s" in capsys.readouterr().err) == (not long)
