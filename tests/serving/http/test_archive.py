import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.http.archive import ArchiveError, TooLargeError, TooManyError, is_zip, read_members


def zipped(*files: tuple[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return buffer.getvalue()


def read(data: bytes, *, max_bytes: int = 1000, max_files: int = 10) -> list[tuple[str, bytes]]:
    return [(member.name, member.data) for member in read_members(data, max_bytes=max_bytes, max_files=max_files)]


FILES = (("b.png", b"second"), ("a/c.png", b"third" * 40), ("a/Röntgen 胸部.png", b""))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_come_out_as_they_went_in_and_in_order(compression):
    assert read(zipped(*FILES, compression=compression)) == list(FILES)


def test_folders_hidden_files_and_what_systems_leave_behind_are_passed_over():
    left = [(name, b"x") for name in (".DS_Store", "a/.hidden/x.png", "__MACOSX/a/._b.png", "a/Thumbs.db", "a/")]
    assert read(zipped(*left, FILES[0])) == [FILES[0]]


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compressions_are_refused_by_name(compression):
    with pytest.raises(ArchiveError, match=r"'b\.png' in the zip is not compressed by deflate"):
        read(zipped(*FILES, compression=compression))


def test_an_encrypted_file_is_refused_by_name():
    content = bytearray(zipped(FILES[0]))
    content[6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArchiveError, match=r"'b\.png' in the zip is encrypted"):
        read(bytes(content))


def test_all_files_together_have_a_limit():
    data = zipped(("a", bytes(600)), ("b", bytes(400)))
    assert [len(content) for _, content in read(data, max_bytes=1000)] == [600, 400]
    with pytest.raises(TooLargeError):
        read(data, max_bytes=999)


def test_the_number_of_files_has_a_limit_that_hidden_ones_do_not_count_for():
    files = [(f"{number}.png", b"x") for number in range(3)]
    hidden = [(f"__MACOSX/._{number}.png", b"x") for number in range(3)]
    assert len(read(zipped(*files, *hidden), max_files=3)) == 3
    with pytest.raises(TooManyError):
        read(zipped(*files), max_files=2)
    with pytest.raises(TooManyError):
        read(zipped(*((f".{number}", b"") for number in range(150))), max_files=2)


def test_a_changed_byte_is_noticed():
    content = bytearray(zipped(("a.png", b"some pixels"), compression=zipfile.ZIP_STORED))
    content[content.find(b"pixels")] ^= 1
    with pytest.raises(ArchiveError, match=r"'a\.png' in the zip is damaged"):
        read(bytes(content))


def test_a_cut_off_archive_is_damaged():
    with pytest.raises(ArchiveError, match="damaged or cut off"):
        read(zipped(*FILES)[:-10])


def test_archives_are_told_by_their_first_bytes():
    assert is_zip(zipped(*FILES))
    assert is_zip(zipped())
    assert not is_zip(b"\x89PNG\r\n\x1a\n")
    assert not is_zip(b"")


def files_or_error(data: bytes) -> None:
    try:
        found = read(data, max_bytes=500, max_files=5)
    except ArchiveError as error:
        assert "\n" not in str(error)
    else:
        assert len(found) <= 5
        assert sum(len(content) for _, content in found) <= 500


@given(st.binary(max_size=400))
def test_arbitrary_bytes_give_files_or_an_archive_error(data):
    files_or_error(data)
    files_or_error(b"PK\x03\x04" + data + b"PK\x05\x06" + bytes(18))


@given(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]), st.data())
def test_damaged_archives_give_files_or_an_archive_error(compression, data):
    content = bytearray(zipped(*FILES, compression=compression))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.sampled_from([0, 1, 255, content[at] ^ 1 << data.draw(st.integers(0, 7))]))
    files_or_error(bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))]))
    files_or_error(bytes(content[data.draw(st.integers(0, len(content))) :]))
