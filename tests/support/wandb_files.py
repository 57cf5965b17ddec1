"""Reads what W&B leaves offline."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.waiting import until


def records(folder: Path) -> list[Any]:
    """Return the records of a run file, after waiting until wandb's service has written the end of the run."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    found: list[Any] = []

    def ended() -> bool:
        found[:] = parsed(path.read_bytes())
        return any(record.HasField("exit") for record in found)

    until(ended)
    return found


def parsed(content: bytes) -> Iterator[Any]:
    """The records of blocks of 32 KB of a LevelDB log behind 7 bytes of header."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]

    at, parts = 7, b""
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def rounds_of(folder: Path) -> list[dict[str, Any]]:
    """Return the logged values of each evaluation round, without the curves that are logged at the end."""
    told = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(folder)
        if record.HasField("history")
    ]
    return [found for found in told if not any(key.startswith("plots/") for key in found)]


def summary_of(folder: Path) -> dict[str, Any]:
    return {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records(folder)
        if record.HasField("summary")
        for item in record.summary.update
    }
