"""Public data sets from a server on this machine that does what servers do."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pneumo.pipeline.data import public_sets as fetching
from pneumo.pipeline.data.public_sets import SETS, download_public_set
from pneumo.serving.contracts.errors import CheckFailedError, InputError, MachineError
from pneumo.serving.contracts.files import open_locked

CONTENT = bytes(range(256)) * 4000
FILE = "pneumoniamnist.npz"


@dataclass
class Behaviour:
    """How the server serves its file, and what it was asked.

    Attributes:
        content: The file.
        breaks: After how many bytes each of the next answers breaks off; None for an answer that does not.
        ranges: Whether it knows ranges.
        statuses: Answers of the next requests, instead of the file.
        asked: Range headers so far; empty where there was none.
    """

    content: bytes = CONTENT
    breaks: list[int | None] = field(default_factory=list)
    ranges: bool = True
    statuses: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        how: Behaviour = self.server.how  # type: ignore[attr-defined]
        asked = self.headers.get("Range", "")
        how.asked.append(asked)
        if how.statuses:
            self.send_response(how.statuses.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and how.ranges else 0
        if start >= len(how.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(how.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = how.content[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(how.content) - 1}/{len(how.content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        broken = how.breaks.pop(0) if how.breaks else None
        self.wfile.write(body[:broken])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.how = Behaviour()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def how(server: ThreadingHTTPServer) -> Behaviour:
    return server.how  # type: ignore[attr-defined]


@pytest.fixture
def mirror(server: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the server, whose file is taken for the known one by its own digest."""
    known = replace(SETS["pneumoniamnist"], digest=hashlib.md5(CONTENT).hexdigest())
    monkeypatch.setitem(SETS, "pneumoniamnist", known)
    return f"http://127.0.0.1:{server.server_port}/mirror/"


def test_a_file_comes_whole_and_is_not_asked_for_again(mirror: str, how: Behaviour, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []

    done = download_public_set("pneumoniamnist", tmp_path, mirror=mirror, progress=lambda *step: seen.append(step))

    assert done.path.read_bytes() == CONTENT
    assert (done.downloaded, done.resumed) == (len(CONTENT), 0)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert download_public_set("pneumoniamnist", tmp_path, mirror=mirror).downloaded == 0
    assert how.asked == [""]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(mirror: str, how: Behaviour, tmp_path: Path) -> None:
    how.breaks = [300_000, 200_000]

    done = download_public_set("pneumoniamnist", tmp_path, mirror=mirror, pause=0)

    assert done.path.read_bytes() == CONTENT
    assert done.downloaded == len(CONTENT)
    assert how.asked == ["", "bytes=300000-", "bytes=500000-"]


def test_what_an_earlier_command_left_is_kept_and_used(mirror: str, how: Behaviour, tmp_path: Path) -> None:
    how.breaks = [400_000, 0, 0]
    with pytest.raises(
        MachineError, match=r"broke at 400,000 of 1,024,000 bytes; 400,000 bytes are kept, run it again"
    ):
        download_public_set("pneumoniamnist", tmp_path, mirror=mirror, attempts=2, pause=0)
    assert not (tmp_path / FILE).exists()

    done = download_public_set("pneumoniamnist", tmp_path, mirror=mirror)

    assert done.path.read_bytes() == CONTENT
    assert (done.downloaded, done.resumed) == (624_000, 400_000)


def test_a_server_without_ranges_sends_all_of_it_again(mirror: str, how: Behaviour, tmp_path: Path) -> None:
    how.ranges = False
    how.breaks = [300_000]

    done = download_public_set("pneumoniamnist", tmp_path, mirror=mirror, pause=0)

    assert done.path.read_bytes() == CONTENT
    assert done.resumed == 0


def test_another_file_is_refused_by_its_digest_and_set_aside(mirror: str, how: Behaviour, tmp_path: Path) -> None:
    how.content = b"<html>please log in</html>"
    with pytest.raises(CheckFailedError, match=f"{FILE}: sent another file: md5 [0-9a-f]{{32}} instead of"):
        download_public_set("pneumoniamnist", tmp_path, mirror=mirror)
    assert [path.name for path in tmp_path.iterdir()] == [f"{FILE}.refused"]

    how.content = CONTENT
    assert download_public_set("pneumoniamnist", tmp_path, mirror=mirror).path.read_bytes() == CONTENT


def test_a_whole_part_is_finished_without_a_byte(mirror: str, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT)

    assert download_public_set("pneumoniamnist", tmp_path, mirror=mirror).downloaded == 0
    assert (tmp_path / FILE).read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_is_thrown_away(mirror: str, tmp_path: Path) -> None:
    (tmp_path / f"{FILE}.part").write_bytes(CONTENT + b"too much")

    assert download_public_set("pneumoniamnist", tmp_path, mirror=mirror).downloaded == len(CONTENT)


def test_a_damaged_file_that_is_there_already_is_refused(mirror: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"short")

    with pytest.raises(CheckFailedError, match=f"{FILE}: another file is there: .*; delete it and fetch again"):
        download_public_set("pneumoniamnist", tmp_path, mirror=mirror)


def test_a_busy_server_is_asked_again(mirror: str, how: Behaviour, tmp_path: Path) -> None:
    how.statuses = [503, 429]

    assert download_public_set("pneumoniamnist", tmp_path, mirror=mirror, pause=0).path.read_bytes() == CONTENT

    how.statuses = [503] * 3
    with pytest.raises(MachineError, match="the server answers 503"):
        download_public_set("pneumoniamnist", tmp_path / "other", mirror=mirror, attempts=3, pause=0)


@pytest.mark.parametrize(
    ("status", "error", "told"), [(404, InputError, "has no such file"), (403, MachineError, "answers 403")]
)
def test_a_refusal_is_reported_at_once(
    status: int, error: type[Exception], told: str, mirror: str, how: Behaviour, tmp_path: Path
) -> None:
    how.statuses = [status]

    with pytest.raises(error, match=f"^{mirror}{FILE}: the server {told}.* --from with a mirror$"):
        download_public_set("pneumoniamnist", tmp_path, mirror=mirror)
    assert len(how.asked) == 1


def test_no_network_is_one_line(server: ThreadingHTTPServer, mirror: str, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()

    with pytest.raises(MachineError, match=r"cannot be reached .*refused.*; check network and proxy"):
        download_public_set("pneumoniamnist", tmp_path, mirror=mirror, attempts=2, pause=0)


def test_two_downloads_of_one_file_do_not_mix(mirror: str, tmp_path: Path) -> None:
    with open_locked(tmp_path / f"{FILE}.part"), pytest.raises(MachineError, match="another download of it is running"):
        download_public_set("pneumoniamnist", tmp_path, mirror=mirror)


def test_the_command_prints_licence_source_and_next_command(
    mirror: str, tmp_path: Path, pneumo: Callable[..., Any]
) -> None:
    told = pneumo("data", "fetch", "pneumoniamnist", "--from", mirror, "--out", tmp_path)

    assert told.code == 0
    assert "licence: CC BY 4.0, see https://zenodo.org/records/10519652" in told.err
    assert "doi:10.1038/s41597-022-01721-8" in told.err
    assert "1,024,000 of 1,024,000 bytes" in told.err
    assert f"next: pneumo data import {tmp_path / FILE} --size 28 --split given" in told.out
    assert json.loads(pneumo("data", "fetch", "pneumoniamnist", "--out", tmp_path, "--json").out)["downloaded"] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["chexpert"], "chexpert: no such public data set; choose kermany or pneumoniamnist"),
        (["kermany", "--from", "file:///etc"], "--from file:///etc: no web address"),
    ],
)
def test_a_wrong_argument_is_one_line(
    arguments: list[str], told: str, tmp_path: Path, pneumo: Callable[..., Any]
) -> None:
    done = pneumo("data", "fetch", *arguments, "--out", tmp_path)

    assert done.code == 2
    assert f"pneumo: {told}" in done.err


@pytest.mark.parametrize("known", SETS.values(), ids=lambda known: known.name)
def test_what_is_known_of_a_set_is_complete(known: fetching.PublicSet) -> None:
    assert known.address.startswith("https://")
    assert len(known.digest) == 2 * hashlib.new(known.algorithm).digest_size
    assert known.licence == "CC BY 4.0"
    assert "doi:10." in known.citation
