"""What pneumo registers with Ludwig. Importing this registers all of it, and loads Ludwig."""

import pipeline.augmentation.affine
import pipeline.augmentation.erasing
import pipeline.augmentation.intensity
import pipeline.augmentation.noise
import pipeline.augmentation.sharpness
import pipeline.augmentation.style
import pipeline.encoders.backbone
import pipeline.encoders.efficientnet_lite
import pipeline.encoders.ensemble
import pipeline.encoders.xrv_densenet
import pipeline.losses  # noqa: F401  # each registers itself
