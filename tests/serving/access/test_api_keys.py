import fcntl
import logging
import multiprocessing
import os
import re
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pneumo.serving.access.api_keys import KeyRing, add_key, matches_key, parse_lifetime, read_keys, revoke_key
from pneumo.serving.contracts.errors import InputError, MachineError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def accepts(ring: KeyRing, presented: str) -> bool:
    return matches_key(ring.find_key(presented), presented)


def test_a_key_is_an_id_and_256_random_bits(path):
    keys = [add_key(path, name)[1] for name in ("a", "b")]
    for key in keys:
        assert re.fullmatch(r"pneumo_[0-9a-f]{16}_[0-9a-f]{64}", key)
    assert len({key.rpartition("_")[2] for key in keys}) == 2


def test_the_file_holds_no_key_and_only_its_owner_reads_it(path):
    key = add_key(path, "ward-3")[1]
    text = path.read_text(encoding="utf-8")
    assert key not in text
    assert key.rpartition("_")[2] not in text
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    revoke_key(path, "ward-3")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_several_keys_are_accepted_and_nothing_near_them(path):
    keys = [add_key(path, name)[1] for name in ("a", "b")]
    ring = KeyRing(path)
    assert [ring.find_key(key).name for key in keys] == ["a", "b"]
    assert all(accepts(ring, key) for key in keys)
    first, second = keys
    mixed = first[:24] + second[24:]
    for wrong in ("", first[:-1], first + "0", first.upper(), first + "\n", " " + first, mixed, "pneumo__", "é"):
        assert not accepts(ring, wrong), wrong


def test_a_digest_from_the_file_is_no_key(path):
    key, _ = add_key(path, "a")
    ring = KeyRing(path)
    assert not accepts(ring, f"pneumo_{key.id}_{key.sha256}")


@given(st.text())
def test_no_text_is_accepted_where_there_is_no_key(text):
    assert not matches_key(None, text)


def test_keys_are_compared_in_constant_time_whether_or_not_there_is_such_an_id(path, monkeypatch):
    compared: list[tuple[int, int]] = []

    def compare(a, b) -> bool:
        compared.append((len(a), len(b)))
        return False

    monkeypatch.setattr("pneumo.serving.access.api_keys.hmac.compare_digest", compare)
    key = add_key(path, "a")[1]
    ring = KeyRing(path)
    for presented in (key, key.replace("pneumo_", "pneumo_0")[: len(key)], "x"):
        accepts(ring, presented)
    assert compared == [(64, 64)] * 3


def test_a_key_expires(path):
    key, _ = add_key(path, "a", lifetime=timedelta(days=90), now=NOW)
    assert not key.is_expired(NOW + timedelta(days=89, hours=23))
    assert key.is_expired(NOW + timedelta(days=90))
    ring = KeyRing(path)
    assert ring.list_valid(NOW)
    assert not ring.list_valid(NOW + timedelta(days=90))


def test_a_key_without_a_lifetime_holds_until_it_is_revoked(path):
    key, _ = add_key(path, "a")
    assert not key.is_expired(datetime(9999, 1, 1, tzinfo=UTC))


def test_a_name_is_given_once_and_free_again_after_it_is_revoked(path):
    add_key(path, "a")
    with pytest.raises(
        InputError, match=r"a: .*keys\.yaml has a key of that name; choose another, or `pneumo keys rev"
    ):
        add_key(path, "a")
    revoke_key(path, "a")
    add_key(path, "a")
    assert [key.name for key in read_keys(path).keys] == ["a"]


@pytest.mark.parametrize("name", ["", "a b", "a/b", "-a", "é", "a" * 65, "a\n"])
def test_what_is_no_name_is_refused(path, name):
    with pytest.raises(InputError, match="a key's name"):
        add_key(path, name)
    assert not path.exists()


def test_revoking_what_is_not_there_names_what_is(path):
    add_key(path, "ward-3")
    with pytest.raises(InputError, match=r"ward-4: no such key in .*; known: ward-3"):
        revoke_key(path, "ward-4")


@pytest.mark.parametrize(
    ("text", "span"), [("12h", timedelta(hours=12)), ("90d", timedelta(days=90)), ("52w", timedelta(weeks=52))]
)
def test_a_lifetime_is_read(text, span):
    assert parse_lifetime(text) == span


@pytest.mark.parametrize("text", ["", "90", "0d", "-1d", "1.5d", "90 d", "90D", "1y", "1d\n", "999999d"])
def test_what_is_no_lifetime_is_refused(text):
    with pytest.raises(InputError, match="such as 12h, 90d or 52w"):
        parse_lifetime(text)


def test_the_longest_lifetime_can_be_kept(path):
    add_key(path, "a", lifetime=parse_lifetime("99999w"))
    assert KeyRing(path).list_valid(NOW)


def test_there_is_no_key_where_there_is_no_file(path):
    assert read_keys(path).keys == ()
    assert not KeyRing(path).list_valid(NOW)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "valid dictionary"),
        ("keys: [", r"keys\.yaml:\d+: not valid YAML"),
        ("keys: 2026-99-99", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("schema_version: 2", "schema_version: Input should be 1"),
        ("SECRET: 1", "Extra inputs"),
        ("keys: [{name: a, SECRET: 1}]", r"keys\.0"),
        ("keys: [{name: a, id: SECRET}]", r"keys\.0"),
        ("keys: [SECRET]", r"keys\.0"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place_and_mend_and_without_its_content(path, content, says):
    path.write_text(content, encoding="utf-8")
    for use in (lambda: KeyRing(path), lambda: add_key(path, "b"), lambda: revoke_key(path, "b")):
        with pytest.raises(InputError, match=says) as caught:
            use()
        assert "SECRET" not in str(caught.value)
        assert "pneumo keys add" in str(caught.value)
    assert path.read_text(encoding="utf-8") == content


@given(content=st.binary(max_size=60))
def test_no_bytes_break_the_reader(content, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(content)
    try:
        read_keys(path)
    except InputError as error:
        assert str(error).startswith(str(path))


def test_two_entries_of_one_name_are_refused(path):
    add_key(path, "a")
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["keys"] *= 2
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    with pytest.raises(InputError, match="same name or id"):
        KeyRing(path)


def test_a_running_ring_takes_over_new_keys_and_drops_revoked_ones(path):
    clock = Clock()
    old = add_key(path, "old")[1]
    ring = KeyRing(path, clock)
    new = add_key(path, "new")[1]
    revoke_key(path, "old")
    clock.now = 0.9
    assert (accepts(ring, old), accepts(ring, new)) == (True, False)  # the file is looked at once a second
    clock.now = 1.1
    assert (accepts(ring, old), accepts(ring, new)) == (False, True)


def test_a_running_ring_reads_only_what_changed(path, monkeypatch):
    clock = Clock()
    key = add_key(path, "a")[1]
    ring = KeyRing(path, clock)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read again"))
    for clock.now in (2.0, 4.0, 6.0):
        assert accepts(ring, key)


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("SECRET: ["), lambda path: path.unlink()])
def test_a_file_spoiled_under_a_running_ring_leaves_its_keys_and_is_logged_once(path, spoil, caplog):
    clock = Clock()
    key = add_key(path, "a")[1]
    ring = KeyRing(path, clock)
    whole = path.read_bytes()
    spoil(path)
    with caplog.at_level(logging.INFO):
        for clock.now in (2.0, 4.0, 6.0):
            assert accepts(ring, key)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "the previous keys stay valid (1)" in record.getMessage()
    assert "SECRET" not in caplog.text
    path.write_bytes(whole)
    revoke_key(path, "a")
    clock.now = 8.0
    assert not accepts(ring, key)


def test_an_unreadable_file_is_refused_by_name(path):
    path.mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        KeyRing(path)


def test_a_key_file_that_is_a_link_stays_one(path, tmp_path):
    (tmp_path / "real").mkdir()
    path.symlink_to(tmp_path / "real" / "keys.yaml")
    key = add_key(path, "a")[1]
    assert path.is_symlink()
    assert accepts(KeyRing(path), key)


def test_keys_added_at_the_same_time_are_all_kept(path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(add_key, [(path, f"key-{number}") for number in range(24)])
    assert {key.name for key in read_keys(path).keys} == {f"key-{number}" for number in range(24)}


def test_a_writer_that_fails_leaves_the_file_and_no_litter(path, monkeypatch):
    add_key(path, "a")
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk")))
    with pytest.raises(OSError, match="disk"):
        add_key(path, "b")
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == [".keys.yaml.lock", "keys.yaml"]
    with (path.parent / ".keys.yaml.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not held any more


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(MachineError, match="give another --keys"):
        add_key(tmp_path / "none" / "keys.yaml", "a")
