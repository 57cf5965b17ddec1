"""`ensemble`: several networks trained independently in one run, and exported as one graph.

In training each image of a batch goes through one member only, and the features are zero outside that member's slice:
the linear layer after them is then one independent head a member, with a common bias. In evaluation every member sees
every image and its slice is divided by their number, so that the logit is the mean of the members' logits.
"""

import dataclasses
from typing import Any

import torch
from ludwig.constants import ENCODER_OUTPUT, IMAGE, MODEL_ECD, TYPE
from ludwig.encoders.image.base import ImageEncoder
from ludwig.encoders.registry import get_encoder_cls, register_encoder
from ludwig.error import ConfigValidationError
from ludwig.schema import utils as schema_utils
from ludwig.schema.encoders.base import BaseEncoderConfig
from ludwig.schema.encoders.utils import get_encoder_classes, get_encoder_conds, register_encoder_config
from pydantic import ValidationError
from torch.nn import functional

from pneumo.pipeline.ludwig.encoders.network import NetworkConfig, freeze_statistics

MEMBERS = "efficientnet_lite"
_SHARED = ("height", "width", "num_channels", "saved_weights_in_checkpoint")
_NOT_STATED = (*_SHARED, "skip", "adapter")
"""Fields of an encoder that Ludwig fills, or that mean nothing inside another."""


def _member_schemas() -> dict[str, type[NetworkConfig]]:
    """Schemas of the encoders that can be a member, by type: those over a ready-made network."""
    known = get_encoder_classes(MODEL_ECD, IMAGE)
    return {name: schema for name, schema in known.items() if issubclass(schema, NetworkConfig)}


class _MembersField(schema_utils.SchemaField):
    """The list under `members`: each entry is a whole encoder section."""

    def _deserialize(self, value: Any, attr: str, data: Any, **_: Any) -> list[NetworkConfig]:
        if not isinstance(value, list) or not value:
            raise ConfigValidationError(f"ensemble: members must be a list of encoders, not {value!r}")
        schemas = _member_schemas()
        members = []
        for member in value:
            if isinstance(member, NetworkConfig):
                members.append(member)
                continue
            kind = member.get(TYPE) if isinstance(member, dict) else member
            if kind not in schemas:
                raise ConfigValidationError(f"ensemble: a member is {kind!r}; choose from {', '.join(schemas)}")
            try:
                members.append(schemas[kind].model_validate(dict(member)))
            except ValidationError as error:
                raise ConfigValidationError(f"ensemble: member {kind}: {error}") from error
        return members

    def _jsonschema_type_mapping(self) -> dict[str, Any]:
        schemas = _member_schemas()
        branches = get_encoder_conds(schemas)
        for branch in branches:
            for name in _NOT_STATED:
                branch["then"]["properties"].pop(name, None)
        item = {"type": "object", "properties": {"type": {"type": "string", "enum": list(schemas)}}, "allOf": branches}
        return {"type": "array", "minItems": 1, "items": {**item, "required": ["type"]}}


def _default_members() -> list[NetworkConfig]:
    return [_member_schemas()[MEMBERS]()]


@register_encoder_config("ensemble", IMAGE)
class EnsembleConfig(BaseEncoderConfig):
    """What a config may say under `encoder:`. The last four are filled by Ludwig."""

    type: str = schema_utils.ProtectedString("ensemble")
    members: list[Any] = dataclasses.field(
        metadata={"marshmallow_field": _MembersField()},  # type: ignore[no-untyped-call]
        default_factory=_default_members,
    )
    copies: int = schema_utils.IntegerRange(
        default=1, min=1, max=16, description="How often each member is built; copies differ by what they are shown."
    )
    saved_weights_in_checkpoint: bool = schema_utils.Boolean(
        default=False, description="Set by Ludwig: weights come from its own checkpoint."
    )
    height: int | None = schema_utils.NonNegativeInteger(default=None, allow_none=True, description="Set by Ludwig.")
    width: int | None = schema_utils.NonNegativeInteger(default=None, allow_none=True, description="Set by Ludwig.")
    num_channels: int | None = schema_utils.NonNegativeInteger(
        default=None, allow_none=True, description="Set by Ludwig."
    )

    def is_pretrained(self) -> bool:
        """Whether a member loads weights other than random ones."""
        return any(member.is_pretrained() for member in self.members)


@register_encoder("ensemble", IMAGE)
class Ensemble(ImageEncoder):
    """Members side by side; the feature vector holds one slice a member."""

    def __init__(self, encoder_config: EnsembleConfig | None = None, **options: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.config = encoder_config or EnsembleConfig(**options)
        shared = {name: getattr(self.config, name) for name in _SHARED}
        self._shape = (shared["num_channels"] or 1, shared["height"] or 224, shared["width"] or 224)
        self.members = torch.nn.ModuleList()
        for member in self.config.members:
            for _ in range(self.config.copies):
                stated = {name: value for name, value in member.to_dict().items() if name not in _NOT_STATED}
                self.members.append(get_encoder_cls(IMAGE, member.type)(**stated, **shared))
        self._widths = [int(member.output_shape[0]) for member in self.members]  # type: ignore[index]

    def forward(self, inputs: torch.Tensor, training: Any = None, mask: Any = None) -> dict[str, torch.Tensor]:
        """Map images [N, C, H, W] to features [N, D], D the sum over members; `training` and `mask` are unused."""
        if self.training:
            return {ENCODER_OUTPUT: self._apart(inputs)}
        features = [member(inputs)[ENCODER_OUTPUT] for member in self.members]
        return {ENCODER_OUTPUT: torch.cat(features, dim=1) / len(self.members)}

    def _apart(self, inputs: torch.Tensor) -> torch.Tensor:
        """Each member sees its share of the batch, which the trainer has shuffled."""
        parts, left, total = [], 0, sum(self._widths)
        bounds = [len(inputs) * position // len(self.members) for position in range(len(self.members) + 1)]
        for member, width, start, end in zip(self.members, self._widths, bounds[:-1], bounds[1:], strict=True):
            if end > start:
                # one image has no variance where the network has reduced it to one pixel
                alone = freeze_statistics(member) if end - start == 1 else []
                own = member(inputs[start:end])[ENCODER_OUTPUT]
                parts.append(functional.pad(own, (left, total - left - width)))
                for layer in alone:
                    layer.train()
            left += width
        return torch.cat(parts)

    @staticmethod
    def get_schema_cls() -> type[BaseEncoderConfig]:
        """The schema that Ludwig validates this encoder's section with."""
        return EnsembleConfig

    @property
    def input_shape(self) -> torch.Size:
        """Channels, height, width."""
        return torch.Size(self._shape)

    @property
    def output_shape(self) -> torch.Size:
        """Length of the feature vector."""
        return torch.Size([sum(self._widths)])
