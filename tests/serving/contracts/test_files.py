import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.files import atomic_path, open_locked, replace_folder, write_text
from tests.support.paths import ROOT


def test_text_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.json"
    write_text(target, "old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        with pytest.raises(OSError, match="No space"):
            write_text(target, "new")

    assert target.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
    target = tmp_path / "a.bin"
    target.write_bytes(b"old")

    def write_half() -> None:
        with atomic_path(target) as partial:
            partial.write_bytes(b"ne")
            raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        write_half()

    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_locked_file_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with open_locked(path), pytest.raises(BlockingIOError):
        open_locked(path)

    with open_locked(path, mode=0o600) as again:
        again.write(b"x")
    with open_locked(path) as kept:
        kept.seek(0)
        assert kept.read() == b"x"


KILLED = """
import os, signal, sys
from pathlib import Path
from pneumo.serving.contracts.files import replace_folder

with replace_folder(Path(sys.argv[1])) as folder:
    (folder / "patient.png").touch()
    if sys.argv[2] == "between":
        Path(sys.argv[1]).rename(folder.parent / "old")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def replace_content(target: Path, name: str) -> None:
    with replace_folder(target) as folder:
        (folder / name).touch()


def interrupt_writing(target: Path) -> None:
    with replace_folder(target) as folder:
        assert not any(folder.iterdir())
        raise KeyboardInterrupt


@pytest.mark.parametrize("moment", ["while writing", "between"])
def test_what_a_killed_process_left_beside_a_folder_is_removed_and_nothing_else(tmp_path: Path, moment: str) -> None:
    target, others = tmp_path / "cases", [tmp_path / ".cases", tmp_path / ".cases-2"]
    replace_content(target, "old")
    for other in others:
        other.mkdir()
    program = [sys.executable, "-c", KILLED, str(target), moment]
    killed = subprocess.run(program, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)
    assert killed.returncode == -signal.SIGKILL
    left = tmp_path / ".cases.writing"
    assert (left / "new" / "patient.png").exists()
    assert (left / ".gitignore").read_text() == "*\n"  # Git takes no image of a patient
    with pytest.raises(KeyboardInterrupt):
        interrupt_writing(target)
    assert [path.name for path in target.iterdir()] == ["old"]
    assert sorted(tmp_path.iterdir()) == [*others, target]


def test_a_folder_is_written_by_one_process_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "cases"
    with replace_folder(target) as folder:
        (folder / "first").touch()
        with pytest.raises(MachineError, match="another process is writing it; wait for it to end"):
            replace_content(target, "second")
    assert [path.name for path in target.iterdir()] == ["first"]
    assert [*tmp_path.iterdir()] == [target]
