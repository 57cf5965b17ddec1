from pathlib import Path

import pytest

from pneumo.serving.contracts.files import atomic_path, open_locked, write_text


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
