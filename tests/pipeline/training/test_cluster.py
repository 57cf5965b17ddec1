"""Folders that Ray leaves in /tmp, without a cluster."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pneumo.pipeline.training import cluster


def ended_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_only_folders_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ours, ended = tmp_path / f"pneumo-ray-{os.getpid()}-ab", tmp_path / f"pneumo-ray-{ended_process()}-cd"
    others = [tmp_path / name for name in ("pneumo-ray-train-ef", "pneumo-ray-99999999999999999999-gh", "ray")]
    for folder in (ours, ended, *others):
        (folder / "session").mkdir(parents=True)

    cluster._remove_abandoned_folders(tmp_path)

    assert sorted(tmp_path.iterdir()) == sorted([ours, *others])


def test_a_process_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "pneumo-ray-4242-ab"
    folder.mkdir()

    def refuse(pid: int, number: int) -> None:
        assert (pid, number) == (4242, 0)
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    cluster._remove_abandoned_folders(tmp_path)

    assert folder.is_dir()


def test_what_a_failed_start_left_is_ended_and_other_children_are_not(tmp_path: Path) -> None:
    program = [sys.executable, "-c", "input()"]
    own, other = (
        subprocess.Popen([*program, folder], stdin=subprocess.PIPE) for folder in (f"--log_dir={tmp_path}/logs", "/tmp")
    )
    with own, other:
        cluster._kill_leftovers(tmp_path)
        assert own.wait(timeout=30) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()
