from datetime import UTC, datetime
from pathlib import Path

import pytest

from pneumo.pipeline.runs import run as runs
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def make(root: Path, name: str, *, now: datetime = NOON) -> Run:
    run = Run.create(name, root=root, now=now)
    (run.folder / "run.json").write_text("{}", encoding="utf-8")
    return run


def test_a_run_is_named_after_time_and_config(tmp_path: Path) -> None:
    name = Run.create("my model/ä", root=tmp_path, now=NOON).name

    assert name.startswith("20260102T120000Z-my-model-")
    assert len(name.rsplit("-", 1)[1]) == 4


def test_a_run_is_found_by_folder_name_start_and_the_word_latest(tmp_path: Path) -> None:
    first = make(tmp_path, "a")
    second = make(tmp_path, "b", now=NOON.replace(hour=13))

    assert Run.open(first.folder, root=tmp_path) == first
    assert Run.open(first.name, root=tmp_path) == first
    assert Run.open("20260102T12", root=tmp_path) == first
    assert Run.open("latest", root=tmp_path) == second
    assert runs.Run.list_folders(tmp_path) == [first, second]


def test_latest_passes_over_failed_runs_unless_one_is_resumed(tmp_path: Path) -> None:
    first, second = (make(tmp_path, name, now=NOON.replace(hour=hour)) for name, hour in (("a", 12), ("b", 13)))
    second.record_file.write_text('{"status": "failed"}', encoding="utf-8")

    assert Run.open("latest", root=tmp_path) == first
    assert Run.open("latest", root=tmp_path, resuming=True) == second
    assert Run.open(second.name, root=tmp_path) == second
    first.record_file.write_text('{"status": "failed", "trials": []}', encoding="utf-8")
    with pytest.raises(InputError, match=f"every run in .* failed; the newest is {second.name}"):
        Run.open("latest", root=tmp_path)


def test_a_misspelt_run_is_answered_with_the_one_that_is_probably_meant(tmp_path: Path) -> None:
    old, new, other = (
        make(tmp_path, name, now=NOON.replace(hour=hour))
        for hour, name in ((12, "efficientnet"), (13, "efficientnet"), (14, "smoke"))
    )
    suffix = old.name.rpartition("-")[2]
    for word, meant in (
        ("efficient", new.name),
        ("runs/eficientnet", new.name),
        (f"net-{suffix}", old.name),
        ("Smok", other.name),
        ("lates", "latest"),
    ):
        with pytest.raises(InputError, match=f"no such run in .*; did you mean {meant}\\?"):
            Run.open(word, root=tmp_path)


def test_an_ambiguous_or_unknown_run_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none yet: `pneumo train CONFIG` makes one"):
        Run.open("latest", root=tmp_path)
    make(tmp_path, "a")
    newest = make(tmp_path, "b")

    with pytest.raises(InputError, match=r"2 runs .* start with this"):
        Run.open("2026", root=tmp_path)
    with pytest.raises(InputError, match=f"the newest is {newest.name}"):
        Run.open("2027", root=tmp_path)
    with pytest.raises(InputError, match="no such run"):
        Run.open("", root=tmp_path)


def test_a_damaged_run_json_is_named(tmp_path: Path) -> None:
    run = make(tmp_path, "a")

    with pytest.raises(InputError, match=r"run\.json: name: Field required"):
        run.info()
    (run.folder / "run.json").unlink()
    with pytest.raises(InputError, match="is not a run"):
        run.info()
