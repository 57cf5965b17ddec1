import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pneumo.pipeline.cli import app
from pneumo.serving.access.api_keys import KeyRing, add_key, matches_key
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.settings import Settings


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PNEUMO_KEYS", raising=False)
    return tmp_path


def pneumo(*arguments: str):
    found = CliRunner().invoke(app, list(arguments))
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def accepts(path: Path, key: str) -> bool:
    ring = KeyRing(path)
    return matches_key(ring.find_key(key), key)


def test_a_new_key_stands_alone_on_standard_output(folder):
    said = pneumo("keys", "add", "ward-3")
    assert re.fullmatch(r"pneumo_\w+\n", said.stdout)
    assert accepts(folder / "keys.yaml", said.stdout.strip())
    assert "the key of ward-3 is valid until `pneumo keys revoke ward-3`" in said.stderr
    assert "Authorization: Bearer" in said.stderr


def test_a_key_can_be_given_an_end():
    said = pneumo("keys", "add", "ward-3", "--expires", "90d")
    day = datetime.now(UTC) + timedelta(days=90)
    assert f"the key of ward-3 is valid until {day:%Y-%m-%d}" in said.stderr
    with pytest.raises(InputError, match="--expires '90'"):
        pneumo("keys", "add", "ward-4", "--expires", "90")
    with pytest.raises(InputError, match="--expires ''"):
        pneumo("keys", "add", "ward-4", "--expires", "")


def test_keys_are_listed_with_their_end_and_without_their_digest(folder):
    key = pneumo("keys", "add", "ward-3").stdout.strip()
    add_key(folder / "keys.yaml", "old", lifetime=timedelta(days=1), now=datetime(2020, 1, 1, tzinfo=UTC))
    shown = pneumo("keys", "list").stdout
    for text in ("ward-3", "never", "old", "2020-01-02 00:00 (expired)", key.split("_")[1]):
        assert text in shown
    listed = json.loads(pneumo("keys", "list", "--json").stdout)
    assert [(entry["name"], entry["expired"]) for entry in listed] == [("ward-3", False), ("old", True)]
    for text in (shown, str(listed)):
        assert key.split("_")[2] not in text
        assert "sha256" not in text


def test_a_revoked_key_is_gone(folder):
    key = pneumo("keys", "add", "ward-3").stdout.strip()
    assert "the key of ward-3 is revoked" in pneumo("keys", "revoke", "ward-3").stderr
    assert not accepts(folder / "keys.yaml", key)
    assert "`pneumo keys add NAME` adds one" in pneumo("keys", "list").stderr


def test_programs_get_json():
    added = json.loads(pneumo("keys", "add", "ward-3", "--json").stdout)
    assert added.keys() == {"name", "id", "created", "expires", "key"}
    revoked = json.loads(pneumo("keys", "revoke", "ward-3", "--json").stdout)
    assert revoked == {name: added[name] for name in ("name", "id", "created", "expires")}


def test_the_file_is_that_of_the_service(folder, monkeypatch):
    assert Settings().keys == Path("keys.yaml")
    monkeypatch.setenv("PNEUMO_KEYS", "shared.yaml")
    key = pneumo("keys", "add", "ward-3").stdout.strip()
    assert accepts(Settings.from_environment().keys, key)
    pneumo("keys", "add", "ward-4", "--keys", "other.yaml")
    assert sorted(path.name for path in folder.glob("*.yaml")) == ["other.yaml", "shared.yaml"]


def test_a_damaged_file_is_named_with_its_line(folder):
    (folder / "keys.yaml").write_text("keys: [")
    with pytest.raises(InputError, match=r"keys\.yaml:\d+: not valid YAML"):
        pneumo("keys", "list")
