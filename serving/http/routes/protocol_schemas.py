"""What the Open Inference Protocol says about servers and models, and its requests for the OpenAPI document."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from pneumo.serving.http.tensors import DATATYPE

INPUT = "image"
OUTPUTS = ("logits", "embedding", "probabilities")


class InferenceError(BaseModel):
    """What went wrong, in the protocol's form."""

    error: str


class ServerMetadata(BaseModel):
    """What answers."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Whether the server answers at all."""

    live: bool


class Ready(BaseModel):
    """Whether the server takes requests."""

    ready: bool


class ModelReady(Ready):
    """Whether a model takes requests."""

    name: str


class TensorMetadata(BaseModel):
    """A tensor that the model takes or gives; -1 stands for the number of images."""

    name: str
    datatype: Literal["FP32"] = DATATYPE
    shape: list[int]


class ModelMetadata(BaseModel):
    """What a model takes and gives."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    versions: list[str]
    platform: str = "onnxruntime_onnx"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


_NUMBERS: dict[str, Any] = {"type": "array", "items": {"anyOf": [{"type": "number"}, {"type": "array"}]}}
_DOCUMENT: dict[str, Any] = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "shape", "datatype"],
                "properties": {
                    "name": {"const": INPUT},
                    "shape": {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4},
                    "datatype": {"const": DATATYPE},
                    "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
                    "data": _NUMBERS,
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"enum": list(OUTPUTS)},
                    "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
                },
            },
        },
    },
}
INFERENCE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _DOCUMENT},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
