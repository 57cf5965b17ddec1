"""Tensors of the Open Inference Protocol: one JSON document, optionally followed by raw bytes.

https://github.com/kserve/open-inference-protocol, with the binary tensor data extension of KServe and Triton.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self, cast

import numpy as np
import pydantic_core
from pydantic import BaseModel, ConfigDict, FailFast, Field, NonNegativeInt, ValidationError, model_validator

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.errors import first_problem
from pneumo.serving.contracts.problems import ProblemError
from pneumo.serving.model.bundle import BundleInfo

DATATYPE: Literal["FP32"] = "FP32"
"""The type of every tensor here: float32."""

INPUT = "image"
OUTPUTS = ("logits", "embedding", "probabilities")

MOST = 16
"""Most items of a list that does not hold values."""

SLACK = 1000
"""Commas and brackets that a request may hold in addition to those of its tensor."""

_RAW = np.dtype("<f4")

type Few[Item] = Annotated[list[Item], Field(max_length=MOST), FailFast()]
"""A short list, validated up to its first error: all errors of a million items would take gigabytes."""


class TensorError(ProblemError):
    """The request does not follow the protocol, or does not fit the model."""

    def __init__(self, detail: str) -> None:
        super().__init__("wrong-tensors", detail)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Parameters(BaseModel):
    """Parameters by name. The protocol lets clients send others than a server knows, such as priorities."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow")
    __pydantic_extra__: dict[str, str | int | float | bool] = Field(init=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, values: object) -> object:
        if isinstance(values, dict) and len(values) > MOST:
            raise ValueError(f"more than {MOST} parameters")
        for name in ("shared_memory_region", "classification"):  # of Triton: they change what an answer holds
            if isinstance(values, dict) and name in values:
                raise ValueError(f"{name} is not supported; leave it out")
        return values


class InputParameters(_Parameters):
    """The transfer of an input tensor: bytes (little-endian, row-major) after the document, or None for JSON."""

    binary_data_size: NonNegativeInt | None = None


class RequestInput(_Strict):
    """An input tensor; `data` holds its values flat or nested, row-major."""

    name: str = Field(json_schema_extra={"const": INPUT})
    shape: Few[NonNegativeInt]
    datatype: str = Field(json_schema_extra={"const": DATATYPE})
    parameters: InputParameters = InputParameters()
    data: list[object] | None = None


class OutputParameters(_Parameters):
    """The transfer of an output tensor: as bytes, as JSON, or None for the default of the request."""

    binary_data: bool | None = None


class RequestOutput(_Strict):
    """A requested output tensor."""

    name: str = Field(json_schema_extra={"enum": list(OUTPUTS)})
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Parameters):
    """The default transfer of output tensors: as bytes or as JSON."""

    binary_data_output: bool = False


class InferenceRequest(_Strict):
    """The JSON document of a request."""

    id: str | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: Few[RequestInput] = Field(min_length=1)
    outputs: Few[RequestOutput] = []


class ResponseOutput(BaseModel):
    """An output tensor; its values are in `data`, or follow the document as bytes."""

    name: str
    shape: list[int]
    datatype: str = DATATYPE
    parameters: dict[str, int] | None = None
    data: list[float] | None = None


class InferenceResponse(BaseModel):
    """The JSON document of an answer; its parameter `notice` is the disclaimer and the model's population."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    parameters: dict[str, str]
    outputs: list[ResponseOutput]


@dataclass(frozen=True)
class Message:
    """A JSON document, and the bytes of tensors that follow it in the order of the document."""

    document: bytes
    raw: bytes

    @classmethod
    def split(cls, body: bytes, declared: str | None) -> Self:
        """Split a body after the length in `Inference-Header-Content-Length`; without it all is the document."""
        if declared is None:
            return cls(body, b"")
        length = int(declared) if declared.isascii() and declared.isdecimal() and len(declared) < 20 else -1
        if not 0 <= length <= len(body):
            raise TensorError("Inference-Header-Content-Length: must be the bytes of the JSON document within the body")
        return cls(body[:length], body[length:])


@dataclass(frozen=True)
class Shape:
    """The allowed shape of a tensor of images: [N, channels, height, width], N from 1 to `most`."""

    channels: int
    height: int
    width: int
    most: int


def read_request(message: Message, shape: Shape) -> InferenceRequest:
    """Parse the document of a request.

    The number of values is checked before parsing, since a parsed value takes many times its bytes.
    """
    document = message.document
    values = shape.most * shape.channels * shape.height * shape.width
    lists = 1 + shape.most * (1 + shape.channels * (1 + shape.height))
    limits = {b",": values + SLACK, b"[": lists + SLACK, b"{": SLACK}
    if any(document.count(mark) > limit for mark, limit in limits.items()):
        raise TensorError(f"more than {shape.most} images hold ({values:,} values); send several requests")
    try:
        return InferenceRequest.model_validate(pydantic_core.from_json(document))
    except ValidationError as error:
        raise TensorError(first_problem(error)) from None
    except ValueError:  # JSON, UTF-8, nested deeper than 200, or a number with thousands of digits
        raise TensorError("not valid JSON") from None


def read_images(message: Message, request: InferenceRequest, shape: Shape) -> Float32:
    """Read the one tensor of a request, float32 [N, channels, height, width] in [0, 1]."""
    if len(request.inputs) != 1:
        raise TensorError(f"inputs: {len(request.inputs)} tensors; the model takes one, {INPUT!r}")
    (tensor,) = request.inputs
    if tensor.name != INPUT:
        raise TensorError(f"inputs.0.name: unknown tensor {tensor.name[:80]!r}; the model takes {INPUT!r}")
    if tensor.datatype != DATATYPE:
        raise TensorError(f"inputs.0.datatype: {tensor.datatype[:80]!r}; the model takes {DATATYPE}")
    image = [shape.channels, shape.height, shape.width]
    if len(tensor.shape) != 4 or tensor.shape[1:] != image or not 1 <= tensor.shape[0] <= shape.most:
        expected = f"[N, {shape.channels}, {shape.height}, {shape.width}] with N from 1 to {shape.most}"
        raise TensorError(f"inputs.0.shape: must be {expected}")
    size = tensor.parameters.binary_data_size
    if (size is None) == (tensor.data is None):
        raise TensorError("inputs.0: give either data or parameters.binary_data_size")
    if tensor.data is None:
        values = _from_raw(message.raw, size or 0, tensor.shape)
    elif message.raw:
        raise TensorError("bytes after the document that no binary_data_size declares")
    else:
        values = _from_json(tensor.data, tensor.shape)
    if not (values.min() >= 0 and values.max() <= 1):  # also false for NaN
        raise TensorError("inputs.0: values must be finite and in [0, 1], as in prepared images")
    return values


def _from_json(data: list[object], shape: Sequence[int]) -> Float32:
    values = data
    if values and isinstance(values[0], list):  # nested: each level as long as the shape says
        for length in shape[1:]:
            if set(map(type, values)) != {list} or set(map(len, cast("list[list[object]]", values))) != {length}:
                raise TensorError("inputs.0.data: nested lists that do not fit the shape")
            values = list(itertools.chain.from_iterable(cast("list[list[object]]", values)))
    if len(values) != math.prod(shape):
        raise TensorError(f"inputs.0.data: {len(values):,} values; the shape holds {math.prod(shape):,}")
    if not set(map(type, values)) <= {int, float}:
        raise TensorError("inputs.0.data: values must be numbers")
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused
            return np.array(values, dtype=np.float64).astype(np.float32).reshape(shape)
    except OverflowError:
        raise TensorError("inputs.0.data: a number is too large") from None


def _from_raw(raw: bytes, size: int, shape: Sequence[int]) -> Float32:
    expected = math.prod(shape) * _RAW.itemsize
    if not size == len(raw) == expected:
        raise TensorError(
            f"inputs.0: binary_data_size {size:,} and {len(raw):,} bytes after the document; the shape holds "
            f"{expected:,}"
        )
    return np.frombuffer(raw, dtype=_RAW).astype(np.float32, copy=False).reshape(shape)


def choose_outputs(request: InferenceRequest, names: Sequence[str]) -> dict[str, bool]:
    """Return the requested outputs (all if none is named), each with its transfer: true for bytes, false for JSON."""
    default = request.parameters.binary_data_output
    if not request.outputs:
        return dict.fromkeys(names, default)
    chosen: dict[str, bool] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in names or output.name in chosen:
            reason = "duplicate" if output.name in chosen else f"unknown tensor {output.name[:80]!r}"
            raise TensorError(f"outputs.{index}.name: {reason}; the model gives {', '.join(names)}")
        own = output.parameters.binary_data
        chosen[output.name] = default if own is None else own
    return chosen


def write_response(
    tensors: dict[str, Float32], chosen: dict[str, bool], *, request: InferenceRequest, info: BundleInfo
) -> Message:
    """Write the answer of a model to a request, with the tensors that `choose_outputs` chose."""
    raw = {each: tensors[each].astype(_RAW, copy=False).tobytes() for each, binary in chosen.items() if binary}
    outputs = [
        ResponseOutput(
            name=each,
            shape=list(tensors[each].shape),
            parameters={"binary_data_size": len(raw[each])} if binary else None,
            data=None if binary else tensors[each].ravel().tolist(),
        )
        for each, binary in chosen.items()
    ]
    document = InferenceResponse(
        model_name=info.name,
        model_version=info.version,
        id=request.id,
        parameters={"notice": info.notice},
        outputs=outputs,
    )
    return Message(document.model_dump_json(exclude_none=True).encode(), b"".join(raw.values()))
