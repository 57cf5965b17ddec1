"""Compare training with frozen batch norms folded into convolutions against the network as built.

A step is forward, backward and the gradients thrown away; both kinds of the same network take turns on the same images.
"""

import argparse
import contextlib
import statistics
import time
from typing import Any

from trainer.contenders import networks_as_built

from pneumo.pipeline.ludwig import runtime

NETWORKS = (
    ("EfficientNet-Lite0", {"type": "efficientnet_lite", "pretrained": False}),
    ("ResNet-18", {"type": "backbone", "network": "resnet18"}),
    ("MobileNetV3, large", {"type": "backbone", "network": "mobilenetv3_large_100"}),
)


def seconds_of_step(encoder: Any, images: Any) -> float:
    began = time.perf_counter()
    encoder(images)["encoder_output"].square().mean().backward()
    took = time.perf_counter() - began
    encoder.zero_grad()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--side", type=int, default=96, help="pixels")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    runtime.load_ludwig()
    import torch
    from ludwig.constants import IMAGE
    from ludwig.encoders.registry import get_encoder_cls

    images = torch.rand(options.batch, 1, options.side, options.side)
    print(f"{'network':<22}{'as built, images/s':>20}{'folded, images/s':>20}{'ratio':>8}")
    for name, section in NETWORKS:
        kinds = {}
        sizes = {"num_channels": 1, "height": options.side, "width": options.side}
        for kind, making in (("as built", networks_as_built()), ("folded", contextlib.nullcontext())):
            with making:
                kinds[kind] = get_encoder_cls(IMAGE, section["type"])(**section, **sizes, batch_norm="frozen").train()
            seconds_of_step(kinds[kind], images)
        turns = [[seconds_of_step(encoder, images) for encoder in kinds.values()] for _ in range(options.steps)]
        built, folded = (options.batch / statistics.median(times) for times in zip(*turns, strict=True))
        ratio = statistics.median(slow / quick for slow, quick in turns)
        print(f"{name:<22}{built:>20.1f}{folded:>20.1f}{ratio:>8.2f}")


if __name__ == "__main__":
    main()
