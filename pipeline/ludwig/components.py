"""What pneumo registers with Ludwig: each module here registers its component when it is imported."""

import importlib

_ROOM = "pneumo.pipeline.ludwig"
MODULES = (
    f"{_ROOM}.augmentation.affine",
    f"{_ROOM}.augmentation.erasing",
    f"{_ROOM}.augmentation.intensity",
    f"{_ROOM}.augmentation.noise",
    f"{_ROOM}.augmentation.sharpness",
    f"{_ROOM}.augmentation.style",
    f"{_ROOM}.encoders.backbone",
    f"{_ROOM}.encoders.efficientnet_lite",
    f"{_ROOM}.encoders.ensemble",
    f"{_ROOM}.encoders.xrv_densenet",
    f"{_ROOM}.losses",
)


def register() -> dict[str, Exception]:
    """Register all components, which loads Ludwig.

    Returns:
        Error by module, for each that could not be registered; calling this again tries those again.
    """
    failures: dict[str, Exception] = {}
    for module in MODULES:
        try:
            importlib.import_module(module)
        except Exception as error:
            failures[module] = error
    return failures
