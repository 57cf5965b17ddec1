"""Register pneumo's components with Ludwig: each module listed here registers its component when it is imported."""

import importlib

_NAMES = (
    *("augmentation.geometry", "augmentation.intensity", "augmentation.sharpness"),
    *("encoders.backbone", "encoders.efficientnet_lite", "encoders.ensemble", "encoders.xrv_densenet"),
    "losses",
)
MODULES = tuple(f"pneumo.pipeline.ludwig.{name}" for name in _NAMES)


def register(*others: str) -> dict[str, Exception]:
    """Register all components, which loads Ludwig, and import other modules.

    Returns:
        The error of each module that could not be imported; another call tries these again.
    """
    failures: dict[str, Exception] = {}
    for module in (*MODULES, *others):
        try:
            importlib.import_module(module)
        except Exception as error:
            failures[module] = error
    return failures
