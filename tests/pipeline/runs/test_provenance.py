import subprocess
from pathlib import Path

from pneumo.pipeline.runs import provenance


def test_versions_name_python_and_what_is_installed() -> None:
    versions = provenance.read_versions()

    assert {"python", "numpy", "torch", "ludwig"} <= set(versions)


def test_a_commit_is_marked_dirty_when_tracked_files_differ(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.com")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert provenance.read_git_commit(tmp_path) is None
    git("init")
    assert provenance.read_git_commit(tmp_path) is None
    file = tmp_path / "a.txt"
    file.write_text("1", encoding="utf-8")
    git("add", ".")
    git("commit", "-m", "first")
    clean = provenance.read_git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "untracked.txt").write_text("", encoding="utf-8")
    assert provenance.read_git_commit(tmp_path) == clean

    file.write_text("2", encoding="utf-8")

    assert provenance.read_git_commit(tmp_path) == f"{clean}-dirty"


def test_hardware_is_described() -> None:
    hardware = provenance.read_hardware()

    assert hardware["cores"] >= 1
    assert hardware["processor"]
    assert hardware["accelerators"] is not None
