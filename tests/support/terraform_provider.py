"""A Terraform provider that knows Google's schema and nothing else, so that `terraform plan` runs without an account.

Terraform itself then reads the files, resolves references, evaluates expressions and refuses what the schema does not
know. What only Google knows (names that are taken, quotas, rights) stays unseen. It speaks Terraform's plugin protocol
6, of which a plan needs a handful of calls (docs/plugin-protocol in Terraform's repository), encoded here by hand.
"""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import msgpack

SCHEMA: dict[str, Any] = json.loads(Path(__file__).with_name("google_schema.json").read_text(encoding="utf-8"))[
    "resources"
]
NESTING = {"list": 2, "set": 3}
UNKNOWN = msgpack.ExtType(0, b"\0")


@contextmanager
def provider() -> Iterator[dict[str, str]]:
    """Serve the provider on this machine until the block ends; yields the environment that leads Terraform to it."""
    server = grpc.server(ThreadPoolExecutor(4))
    handlers = {name: grpc.unary_unary_rpc_method_handler(answer) for name, answer in CALLS.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tfplugin6.Provider", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    there = {"Network": "tcp", "String": f"127.0.0.1:{port}"}
    how = {"Protocol": "grpc", "ProtocolVersion": 6, "Pid": os.getpid(), "Test": True, "Addr": there}
    try:
        yield {"TF_REATTACH_PROVIDERS": json.dumps({"registry.terraform.io/hashicorp/google": how})}
    finally:
        server.stop(None).wait()


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value) if value else b""


def _bytes(field: int, value: bytes | str) -> bytes:
    content = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 127:
        encoded += bytes([value & 127 | 128])
        value >>= 7
    return encoded + bytes([value])


def _fields(message: bytes) -> dict[int, bytes]:
    """The length-delimited fields of a message: all that a request here has."""
    found: dict[int, bytes] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        key = varint()
        size = varint()
        if key & 7 == 2:
            found[key >> 3] = message[at : at + size]
            at += size
    return found


def _block(block: dict[str, Any]) -> bytes:
    encoded = b""
    for name, attribute in block["attributes"].items():
        required = attribute.get("required", False)
        optional = not required and "required" in attribute
        flags = _number(4, required) + _number(5, optional) + _number(6, not required)
        encoded += _bytes(2, _bytes(1, name) + _bytes(2, json.dumps(attribute["type"])) + flags)
    for name, nested in block["blocks"].items():
        single = nested["nesting"] not in NESTING
        nesting = _number(3, 1 if single else NESTING[nested["nesting"]])
        least = _number(4, nested["required"] and not single)
        encoded += _bytes(3, _bytes(1, name) + _bytes(2, _block(nested["block"])) + nesting + least)
    return encoded


def _get_schema(request: bytes, context: grpc.ServicerContext) -> bytes:
    optional = {name: {"type": "string", "required": False} for name in ("project", "region")}
    answer = _bytes(1, _bytes(2, _block({"attributes": optional, "blocks": {}})))
    for name, block in SCHEMA.items():
        answer += _bytes(2, _bytes(1, name) + _bytes(2, _bytes(2, _block(block))))
    return answer


def _say_nothing(request: bytes, context: grpc.ServicerContext) -> bytes:
    return b""


def _plan(request: bytes, context: grpc.ServicerContext) -> bytes:
    """As proposed; what Google would fill in is not known yet."""
    fields = _fields(request)
    known = SCHEMA[fields[1].decode()]["attributes"]
    proposed = msgpack.unpackb(_fields(fields[3])[1], strict_map_key=False)
    for name, attribute in known.items():
        if not attribute.get("required") and proposed.get(name) is None:
            proposed[name] = UNKNOWN
    return _bytes(1, _bytes(1, msgpack.packb(proposed))) + _number(5, 1)


CALLS: dict[str, Callable[[bytes, grpc.ServicerContext], bytes]] = {
    "GetProviderSchema": _get_schema,
    "ValidateProviderConfig": _say_nothing,
    "ValidateResourceConfig": _say_nothing,
    "ConfigureProvider": _say_nothing,
    "PlanResourceChange": _plan,
    "StopProvider": _say_nothing,
}
