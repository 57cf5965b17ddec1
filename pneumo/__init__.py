"""From a YAML file to a chest X-ray classifier that is trained, audited, calibrated, exported and served.

    import pneumo

    pneumo.import_dataset("chest_xray/", out="data")
    run = pneumo.train("ludwig_configs/baseline.yaml", "data")
    pneumo.promote(run)
    for result in pneumo.predict("new_images/"):
        print(result.path, result.prediction or result.error)

Each function does the same as the command of its name. `pneumo.Client` sends requests to a running service. Importing
this module loads nothing else; a name is imported when it is first used. Research software, not a medical device.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pneumo.api import evaluate, export, import_dataset, load_config, predict, promote, sweep, train
    from pneumo.serving.client import Client
    from pneumo.serving.model.bundle import Bundle

    __version__: str

__all__ = [
    "Bundle",
    "Client",
    "__version__",
    "evaluate",
    "export",
    "import_dataset",
    "load_config",
    "predict",
    "promote",
    "sweep",
    "train",
]

_MODULES = {"Bundle": "pneumo.serving.model.bundle", "Client": "pneumo.serving.client"}
"""Modules of the public names that `pneumo.api` does not define."""


if not TYPE_CHECKING:  # a type checker would believe that every name exists

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version(__name__)
        else:
            value = getattr(importlib.import_module(_MODULES.get(name, "pneumo.api")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """Return the public names with those that every module has."""
    return sorted({*globals(), *__all__})
