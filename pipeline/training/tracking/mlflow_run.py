"""MLflow, through its client alone (`mlflow-skinny`). Ludwig's MlflowCallback is not used: see docs/architecture.md."""

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import batched
from pathlib import Path
from typing import TYPE_CHECKING

from pneumo.pipeline.runs.settings import flatten_settings
from pneumo.pipeline.training.tracking.interface import (
    PROJECT,
    SUCCEEDED,
    Artifact,
    Plot,
    TrackedRun,
    TrackerRun,
    tracker_environment,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_RUN = "pneumo.run"
"""Tag with the name of a run, by which a resumed run and the trials of a sweep find it."""
_BATCH = 100  # largest number of parameters that a server takes at once
_BUNDLE = "bundle"  # folder of a model among a run's artifacts
_STATUSES = {"interrupted": "KILLED"} | dict.fromkeys(SUCCEEDED, "FINISHED")


def connect(address: str) -> AbstractContextManager[None]:
    """Set the variables that mlflow reads when it is imported and for each request."""
    return tracker_environment(
        {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # where `--json` prints its document
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            "MLFLOW_REGISTRY_URI": address,  # parts of the client ask the defaults: a database in the working folder
            "MLFLOW_TRACKING_URI": address,
        },
        {
            "MLFLOW_ALLOW_FILE_STORE": "true",  # a folder as the address is a person's choice
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # by default a server that is away costs minutes
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
        },
    )


def begin(address: str, tracked: TrackedRun, folder: Path, warn: Callable[[str], None]) -> "MlflowRun":
    """Begin a run of the experiment `$MLFLOW_EXPERIMENT_NAME`, `pneumo` by default, or continue that of its name."""
    address = address or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not address:
        raise OSError("no server: set MLFLOW_TRACKING_URI, or give mlflow:URI")
    with connect(address):
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=address, registry_uri=address)
        title = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = client.get_experiment_by_name(title)
        place = experiment.experiment_id if experiment else client.create_experiment(title)

        def find(name: str | None) -> str | None:
            found = client.search_runs([place], f"tags.`{_RUN}` = '{name}'", max_results=1) if name else ()
            return found[0].info.run_id if found else None

        if run := find(tracked.name):
            client.update_run(run, status="RUNNING")
            rounds = client.get_metric_history(run, "epoch")
            return MlflowRun(client, address, run, max((each.step for each in rounds), default=-1))
        tags = {_RUN: tracked.name, "pneumo.job": tracked.job_type, "data_fingerprint": tracked.data_fingerprint}
        if tracked.group != tracked.name and (parent := find(tracked.group)):
            tags["mlflow.parentRunId"] = parent
        run = client.create_run(place, run_name=tracked.name, tags=tags).info.run_id
        _log_parameters(client, run, tracked)
        return MlflowRun(client, address, run, -1)


def _log_parameters(client: "MlflowClient", run: str, tracked: TrackedRun) -> None:
    from mlflow.entities import Param

    settings = flatten_settings(tracked.describe())
    for some in batched(settings.items(), _BATCH):
        client.log_batch(run, params=[Param(_make_name(key), str(value)[:500]) for key, value in some])


class MlflowRun(TrackerRun):
    """A run at an MLflow server."""

    def __init__(self, client: "MlflowClient", address: str, run: str, last_step: int) -> None:
        self._client = client
        self._address = address
        self._run = run
        self.last_step = last_step

    def log(self, values: Mapping[str, float], step: int, moment: float) -> None:
        """Log a round in one request."""
        with connect(self._address):
            from mlflow.entities import Metric

            at = round(1000 * moment)
            metrics = [Metric(_make_name(name), value, at, step) for name, value in values.items()]
            self._client.log_batch(self._run, metrics=metrics)

    def draw(self, plots: Sequence[Plot]) -> None:
        """Keep tables in `plots/` of the run's artifacts, in the form of MLflow's own tables."""
        with connect(self._address):
            for plot in plots:
                table = {"columns": [plot.x, plot.y], "data": plot.thin()}
                self._client.log_dict(self._run, table, f"plots/{plot.title}.json")

    def keep(self, artifact: Artifact) -> None:
        """Register a version of a model with its files; the same digest is the same version."""
        name, client = _make_name(artifact.name), self._client
        facts = {key: str(value) for key, value in artifact.facts.items()}
        with connect(self._address):
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name)
            digests = {each.tags.get("digest"): each for each in client.search_model_versions(f"name = '{name}'")}
            version = digests.get(facts.get("digest", ""))
            if version is None:
                for file, within in artifact.files():
                    client.log_artifact(self._run, str(file), (_BUNDLE / within.parent).as_posix())
                version = client.create_model_version(
                    name, f"runs:/{self._run}/{_BUNDLE}", self._run, tags=facts, await_creation_for=0
                )
            for alias in artifact.aliases:
                client.set_registered_model_alias(name, re.sub(r"[^\w-]", "-", alias), version.version)

    def finish(self, metrics: Mapping[str, float], status: str) -> None:
        """Log the final metrics behind the last round, and end the run."""
        self.log(metrics, max(self.last_step, 0), time.time())
        with connect(self._address):
            self._client.set_tag(self._run, "status", status)
            self._client.set_terminated(self._run, _STATUSES.get(status, "FAILED"))


def _make_name(text: str) -> str:
    return re.sub(r"[^\w.\- :/]", "_", text)[:250]
