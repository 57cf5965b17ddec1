"""`ensemble`: several networks trained independently in one run, and exported as one graph.

In training each image of a batch goes through one member only, and the features are zero outside that member's slice:
the linear layer after them is then one independent head per member, with a common bias. In evaluation every member
sees every image and its slice is divided by their number, so that the logit is the mean of the members' logits.
"""

import copy
import dataclasses
from typing import Any

import torch
from ludwig.constants import ENCODER_OUTPUT, IMAGE, MODEL_ECD, TYPE
from ludwig.encoders.registry import get_encoder_cls
from ludwig.error import ConfigValidationError
from ludwig.schema import utils as schema_utils
from ludwig.schema.encoders.utils import get_encoder_classes, get_encoder_conds
from pydantic import ValidationError
from torch.nn import functional

from pneumo.pipeline.config.schema import Schema
from pneumo.pipeline.ludwig.encoders.network import (
    ImageEncoderConfig,
    NetworkConfig,
    RegisteredEncoder,
    freeze_statistics,
    register_image_encoder,
)

DEFAULT_MEMBER = "efficientnet_lite"
_SHARED = ("height", "width", "num_channels", "saved_weights_in_checkpoint")
_NOT_STATED = (*_SHARED, "skip", "adapter", "cached_views")
"""Fields of an encoder that Ludwig fills in, or that have no meaning for a member."""


def _member_schemas() -> dict[str, type[NetworkConfig]]:
    """Return the schemas of the encoders that can be a member, by type: those over a ready-made network."""
    schemas = get_encoder_classes(MODEL_ECD, IMAGE)
    return {name: schema for name, schema in schemas.items() if issubclass(schema, NetworkConfig)}


class _MembersField(schema_utils.SchemaField):
    """The list under `members`: each entry is a whole encoder section."""

    def _deserialize(self, value: object, attr: str, data: object, **_: object) -> list[NetworkConfig]:
        if not isinstance(value, list) or not value:
            raise ConfigValidationError(f"ensemble: members must be a list of encoders, not {value!r}")
        return [_read_member(member) for member in value]

    def _jsonschema_type_mapping(self) -> Schema:
        schemas = _member_schemas()
        branches = get_encoder_conds(schemas)
        for branch in branches:
            for name in _NOT_STATED:
                branch["then"]["properties"].pop(name, None)
        item = {"type": "object", "properties": {"type": {"type": "string", "enum": list(schemas)}}, "allOf": branches}
        return {"type": "array", "minItems": 1, "items": {**item, "required": ["type"]}}


def _read_member(member: object) -> NetworkConfig:
    if isinstance(member, NetworkConfig):
        return member
    kind, schemas = member.get(TYPE) if isinstance(member, dict) else member, _member_schemas()
    if kind not in schemas:
        raise ConfigValidationError(f"ensemble: a member is {kind!r}; choose from {', '.join(schemas)}")
    try:
        return schemas[kind].model_validate(copy.copy(member))
    except ValidationError as error:
        raise ConfigValidationError(f"ensemble: member {kind}: {error}") from error


class EnsembleConfig(ImageEncoderConfig):
    """Options under `encoder:`."""

    type: str = schema_utils.ProtectedString("ensemble")
    members: list[Any] = dataclasses.field(
        metadata={"marshmallow_field": _MembersField()},  # type: ignore[no-untyped-call]
        default_factory=lambda: [_member_schemas()[DEFAULT_MEMBER]()],
    )
    copies: int = schema_utils.IntegerRange("Networks per member; they see different images.", 1, min=1, max=16)


@register_image_encoder(EnsembleConfig)
class Ensemble(RegisteredEncoder[EnsembleConfig]):
    """Members side by side; the feature vector holds one slice per member."""

    def __init__(self, encoder_config: EnsembleConfig | None = None, **options: Any) -> None:
        super().__init__(encoder_config, **options)
        shared = {name: getattr(self.config, name) for name in _SHARED}
        self.members = torch.nn.ModuleList()
        for member in self.config.members:
            for _ in range(self.config.copies):
                stated = {name: value for name, value in member.to_dict().items() if name not in _NOT_STATED}
                self.members.append(get_encoder_cls(IMAGE, member.type)(**stated, **shared))
        self._widths = [int(member.output_shape[0]) for member in self.members]  # type: ignore[index]
        self.features = sum(self._widths)

    def forward(self, inputs: torch.Tensor, training: object = None, mask: object = None) -> dict[str, torch.Tensor]:
        """Map images [N, C, H, W] to features [N, D], D the sum over members; `training` and `mask` are unused."""
        if self.training:
            return {ENCODER_OUTPUT: self._train_members(inputs)}
        features = [member(inputs)[ENCODER_OUTPUT] for member in self.members]
        return {ENCODER_OUTPUT: torch.cat(features, dim=1) / len(self.members)}

    def _train_members(self, inputs: torch.Tensor) -> torch.Tensor:
        """Give each member its share of the batch, which the trainer has shuffled."""
        parts, left = [], 0
        bounds = [len(inputs) * position // len(self.members) for position in range(len(self.members) + 1)]
        for member, width, start, end in zip(self.members, self._widths, bounds[:-1], bounds[1:], strict=True):
            if end > start:
                # one image has no variance if the network has reduced it to one pixel
                frozen = freeze_statistics(member) if end - start == 1 else []
                features = member(inputs[start:end])[ENCODER_OUTPUT]
                parts.append(functional.pad(features, (left, self.features - left - width)))
                for layer in frozen:
                    layer.train()
            left += width
        return torch.cat(parts)
