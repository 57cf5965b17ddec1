"""Tensors as the Open Inference Protocol writes them: one JSON document, with raw bytes behind it where asked for.

https://github.com/kserve/open-inference-protocol, with the binary tensor data extension of KServe and Triton.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import numpy as np
import pydantic_core
from pydantic import BaseModel, ConfigDict, FailFast, Field, NonNegativeInt, ValidationError

from pneumo.serving.contracts.arrays import Float32
from pneumo.serving.contracts.errors import InputError, first_problem

DATATYPE: Literal["FP32"] = "FP32"
"""Of every tensor here: float32."""

MOST = 16
"""Items of a list that is not of values."""

SLACK = 1000
"""Commas and brackets that a request may hold beside those of its tensor."""

_RAW = np.dtype("<f4")

type Few[Item] = Annotated[list[Item], Field(max_length=MOST), FailFast()]
"""A list whose faults are told one at a time: an account of a million of them would take gigabytes."""


class TensorError(InputError):
    """The request is not what the protocol or the model asks for."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class InputParameters(_Strict):
    """How a tensor of the request comes.

    Attributes:
        binary_data_size: Its bytes behind the JSON document, little-endian and row-major; None for JSON.
    """

    binary_data_size: NonNegativeInt | None = None


class RequestInput(_Strict):
    """A tensor of the request; `data` holds its values flat or nested, row-major."""

    name: str
    shape: Few[NonNegativeInt]
    datatype: str
    parameters: InputParameters = InputParameters()
    data: list[Any] | None = None


class OutputParameters(_Strict):
    """How a tensor shall come back; None as the request says for all."""

    binary_data: bool | None = None


class RequestOutput(_Strict):
    """A tensor that is asked for."""

    name: str
    parameters: OutputParameters = OutputParameters()


class RequestParameters(_Strict):
    """Whether tensors come back as bytes where their own parameters do not say."""

    binary_data_output: bool = False


class InferenceRequest(_Strict):
    """The JSON document of a request."""

    id: str | None = None
    parameters: RequestParameters = RequestParameters()
    inputs: Few[RequestInput] = Field(min_length=1)
    outputs: Few[RequestOutput] = []


class ResponseOutput(BaseModel):
    """A tensor of the answer; its values are in `data`, or bytes behind the document."""

    name: str
    shape: list[int]
    datatype: str = DATATYPE
    parameters: dict[str, int] | None = None
    data: list[float] | None = None


class InferenceResponse(BaseModel):
    """The JSON document of an answer."""

    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseOutput]


@dataclass(frozen=True)
class Message:
    """A document and what stands behind it.

    Attributes:
        document: JSON.
        raw: Bytes of tensors, in their order in the document; empty where there are none.
    """

    document: bytes
    raw: bytes

    @classmethod
    def split(cls, body: bytes, declared: str | None) -> Self:
        """Take a body apart.

        Args:
            body: As received.
            declared: The header `Inference-Header-Content-Length`: bytes of the document, or None where it is all.

        Raises:
            TensorError: The header fits no such body.
        """
        if declared is None:
            return cls(body, b"")
        length = int(declared) if declared.isascii() and declared.isdecimal() and len(declared) < 20 else -1
        if not 0 <= length <= len(body):
            raise TensorError("Inference-Header-Content-Length: must be the bytes of the JSON document within the body")
        return cls(body[:length], body[length:])


@dataclass(frozen=True)
class Shape:
    """What a tensor of images must be like: [N, channels, height, width], N from 1 to `most`."""

    channels: int
    height: int
    width: int
    most: int

    @property
    def image(self) -> tuple[int, int, int]:
        """Of one image."""
        return self.channels, self.height, self.width

    @property
    def values(self) -> int:
        """Most values of a request."""
        return self.most * self.channels * self.height * self.width

    @property
    def lists(self) -> int:
        """Most lists of a request, where its values are nested."""
        return 1 + self.most * (1 + self.channels * (1 + self.height))


def read_request(message: Message, shape: Shape) -> InferenceRequest:
    """Read the document of a request.

    Raises:
        TensorError: It is not one, or it could hold more values than `shape` allows: parsed, each would take many times
            its bytes.
    """
    document = message.document
    if (
        document.count(b",") > shape.values + SLACK
        or document.count(b"[") > shape.lists + SLACK
        or document.count(b"{") > SLACK
    ):
        raise TensorError(f"more than {shape.most} images hold ({shape.values:,} values); send several requests")
    try:
        return InferenceRequest.model_validate(pydantic_core.from_json(document))
    except ValidationError as error:
        raise TensorError(first_problem(error)) from None
    except ValueError:  # JSON, UTF-8, nested deeper than 200, or a number with thousands of digits
        raise TensorError("not valid JSON") from None


def read_images(message: Message, request: InferenceRequest, *, name: str, shape: Shape) -> Float32:
    """Read the one tensor of a request, float32 [N, channels, height, width] in [0, 1].

    Raises:
        TensorError: Another name, type or shape, other values, or more tensors.
    """
    if len(request.inputs) != 1:
        raise TensorError(f"inputs: {len(request.inputs)} tensors, where the model takes one, {name!r}")
    (given,) = request.inputs
    if given.name != name:
        raise TensorError(f"inputs.0.name: unknown tensor {given.name[:80]!r}; the model takes {name!r}")
    if given.datatype != DATATYPE:
        raise TensorError(f"inputs.0.datatype: {given.datatype[:80]!r}, where {name!r} is {DATATYPE}")
    if len(given.shape) != 4 or tuple(given.shape[1:]) != shape.image or not 1 <= given.shape[0] <= shape.most:
        expected = f"[N, {shape.channels}, {shape.height}, {shape.width}] with N from 1 to {shape.most}"
        raise TensorError(f"inputs.0.shape: must be {expected}")
    size = given.parameters.binary_data_size
    if (size is None) == (given.data is None):
        raise TensorError("inputs.0: give either data or parameters.binary_data_size")
    if given.data is not None:
        if message.raw:
            raise TensorError("bytes behind the document that no tensor's binary_data_size tells of")
        values = _from_json(given.data, tuple(given.shape))
    else:
        values = _from_raw(message.raw, size or 0, tuple(given.shape))
    if not (values.min() >= 0 and values.max() <= 1):  # also false where one is not a number
        raise TensorError("inputs.0: values must be finite and in [0, 1], as images are prepared")
    return values


def _from_json(data: list[Any], shape: tuple[int, ...]) -> Float32:
    values: Sequence[Any] = data
    if values and isinstance(values[0], list):  # nested: every level as long as the shape says
        for length in shape[1:]:
            if set(map(type, values)) != {list} or set(map(len, values)) != {length}:
                raise TensorError("inputs.0.data: nested otherwise than the shape says")
            values = list(itertools.chain.from_iterable(values))
    if len(values) != _product(shape):
        raise TensorError(f"inputs.0.data: {len(values):,} values, where the shape holds {_product(shape):,}")
    if not set(map(type, values)) <= {int, float}:
        raise TensorError("inputs.0.data: values must be numbers")
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused
            return np.array(values, dtype=np.float64).astype(np.float32).reshape(shape)
    except OverflowError:
        raise TensorError("inputs.0.data: a number that is no float") from None


def _from_raw(raw: bytes, size: int, shape: tuple[int, ...]) -> Float32:
    expected = _product(shape) * _RAW.itemsize
    if not size == len(raw) == expected:
        raise TensorError(
            f"inputs.0: binary_data_size {size:,} and {len(raw):,} bytes behind the document, where the shape holds "
            f"{expected:,}"
        )
    return np.frombuffer(raw, dtype=_RAW).astype(np.float32, copy=False).reshape(shape)


def _product(lengths: Sequence[int]) -> int:
    return int(np.prod(lengths, dtype=np.int64))


def choose_outputs(request: InferenceRequest, known: Sequence[str]) -> dict[str, bool]:
    """The tensors that are asked for, by name, and whether each shall come as bytes; all where none is named.

    Raises:
        TensorError: An unknown tensor, or one twice.
    """
    everything = request.parameters.binary_data_output
    if not request.outputs:
        return dict.fromkeys(known, everything)
    chosen: dict[str, bool] = {}
    for index, output in enumerate(request.outputs):
        if output.name not in known or output.name in chosen:
            what = "twice" if output.name in chosen else f"unknown tensor {output.name[:80]!r}"
            raise TensorError(f"outputs.{index}.name: {what}; the model gives {', '.join(known)}")
        own = output.parameters.binary_data
        chosen[output.name] = everything if own is None else own
    return chosen


def write_response(
    tensors: dict[str, Float32], chosen: dict[str, bool], *, request: InferenceRequest, name: str, version: str
) -> Message:
    """Write an answer.

    Args:
        tensors: By name.
        chosen: As of `choose_outputs`.
        request: What is answered.
        name: Of the model.
        version: Of the model.
    """
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
    document = InferenceResponse(model_name=name, model_version=version, id=request.id, outputs=outputs)
    return Message(document.model_dump_json(exclude_none=True).encode(), b"".join(raw.values()))
