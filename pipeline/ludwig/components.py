"""What pneumo registers with Ludwig. Importing this registers all of it, and loads Ludwig."""

import pneumo.pipeline.ludwig.augmentation.affine
import pneumo.pipeline.ludwig.augmentation.erasing
import pneumo.pipeline.ludwig.augmentation.intensity
import pneumo.pipeline.ludwig.augmentation.noise
import pneumo.pipeline.ludwig.augmentation.sharpness
import pneumo.pipeline.ludwig.augmentation.style
import pneumo.pipeline.ludwig.encoders.backbone
import pneumo.pipeline.ludwig.encoders.efficientnet_lite
import pneumo.pipeline.ludwig.encoders.ensemble
import pneumo.pipeline.ludwig.encoders.xrv_densenet
import pneumo.pipeline.ludwig.losses  # noqa: F401  # each registers itself
