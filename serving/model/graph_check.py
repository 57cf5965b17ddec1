"""Check that an ONNX graph is data: it names no file, and no operator beyond those of the ONNX standard.

ONNX Runtime reads external data of tensors from the working directory, and operators of other domains may read files or
run code. The graph is looked through before ONNX Runtime sees it. The service has no ONNX package, so the Protocol
Buffers are read here: each message once, without a copy, in time linear in their number.
"""

from collections.abc import Iterator

DOMAINS = frozenset({b"", b"ai.onnx"})
"""Domains of the operators that a graph may use; both are the ONNX standard's. Quantised graphs need no other."""

MOST_FIELDS = 1_000_000
"""Most fields of a graph; EfficientNet-Lite0 has 2,600."""

MESSAGES: dict[str, tuple[set[int], dict[int, str]]] = {
    "ModelProto": ({1, 2, 3, 4, 5, 6, 8, 14, 26}, {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"}),
    "TrainingInfoProto": ({3, 4}, {1: "GraphProto", 2: "GraphProto"}),
    "GraphProto": ({2, 10, 11, 12, 13, 14, 16}, {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"}),
    "FunctionProto": ({1, 4, 5, 6, 8, 9, 10, 12, 13, 14}, {7: "NodeProto", 11: "AttributeProto"}),
    "NodeProto": ({1, 2, 3, 4, 6, 7, 8, 9, 10}, {5: "AttributeProto"}),
    "AttributeProto": (
        {1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20, 21},
        dict.fromkeys((5, 10), "TensorProto")
        | dict.fromkeys((6, 11), "GraphProto")
        | dict.fromkeys((22, 23), "SparseTensorProto"),
    ),
    "SparseTensorProto": ({3}, {1: "TensorProto", 2: "TensorProto"}),
    "TensorProto": ({*range(1, 15), 16}, {}),
}
"""Messages that may hold a tensor or an operator: numbers of their plain fields, and messages in others by number."""

_EXTERNAL = {13, 14}
"""Fields of a tensor: the place of its external data, and whether it has such data."""
_DOMAIN = {"NodeProto": 7, "FunctionProto": 10}
_OPERATOR = 4


def find_objection(model: bytes) -> str | None:
    """Return the reason to refuse an ONNX graph, in words; None if it is data and nothing else."""
    if model[4:8] == b"ORTM":
        return "a graph in ONNX Runtime's own format"
    pending = [("ModelProto", memoryview(model))]
    count = 0
    try:
        while pending:
            kind, message = pending.pop()
            for number, value in _read_fields(message):
                if objection := _judge_field(kind, number, value):
                    return objection
                if (nested := MESSAGES[kind][1].get(number)) and isinstance(value, memoryview):
                    pending.append((nested, value))
                count += 1
                if count > MOST_FIELDS:
                    return f"more than {MOST_FIELDS:,} fields"
    except (ValueError, IndexError):
        return "no ONNX graph, or a damaged one"
    return None


def _judge_field(kind: str, number: int, value: int | memoryview) -> str | None:
    """Return the reason to refuse a field of a message, or None."""
    if not any(number in numbers for numbers in MESSAGES[kind]):
        return f"an unknown field {number} in a {kind}"
    if kind == "TensorProto" and number in _EXTERNAL and value != 0:
        return "external data: a tensor that lies in another file"
    is_text = kind in _DOMAIN and number in (_DOMAIN[kind], _OPERATOR)
    text = bytes(value) if is_text and isinstance(value, memoryview) else b"?"
    if number == _DOMAIN.get(kind) and text not in DOMAINS:
        name = ascii(text[:40].decode("ascii", "replace"))
        return f"an operator of the domain {name}; only those of the ONNX standard are allowed"
    if kind == "NodeProto" and number == _OPERATOR and text == b"EPContext":
        return "an EPContext node, which holds or names compiled code"
    return None


def _read_fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield number and value of each field, an integer or bytes; raise a `ValueError` or `IndexError` for damage."""
    place, end = 0, len(message)
    while place < end:
        tag, place = _read_integer(message, place)
        size, value = 0, 0
        match tag & 7:
            case 0:
                value, place = _read_integer(message, place)
            case 2:
                size, place = _read_integer(message, place)
            case 1 | 5 as width:
                size = 8 if width == 1 else 4
            case _:
                raise ValueError
        if place + size > end:
            raise ValueError
        yield tag >> 3, message[place : place + size] if tag & 7 else value
        place += size


def _read_integer(message: memoryview, place: int) -> tuple[int, int]:
    """Return the integer that begins at a place, in seven bits per byte, and the place after it."""
    value = 0
    for position in range(10):
        byte = message[place + position]
        value |= (byte & 127) << 7 * position
        if byte < 128:
            return value, place + position + 1
    raise ValueError
