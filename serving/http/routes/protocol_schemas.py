"""Schemas of the Open Inference Protocol about servers and models."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from pneumo.serving.http.tensors import DATATYPE


class InferenceError(BaseModel):
    """An error in the protocol's form."""

    error: str


class ServerMetadata(BaseModel):
    """The server and the extensions that it supports."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The liveness of the server."""

    live: bool


class Ready(BaseModel):
    """The readiness of the server for requests."""

    ready: bool


class ModelReady(Ready):
    """The readiness of a model for requests."""

    name: str


class TensorMetadata(BaseModel):
    """An input or output tensor; -1 stands for the number of images."""

    name: str
    datatype: Literal["FP32"] = DATATYPE
    shape: list[int]


class ModelMetadata(BaseModel):
    """The inputs and outputs of a model."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    versions: list[str]
    platform: str = "onnxruntime_onnx"
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
