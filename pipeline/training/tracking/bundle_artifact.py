"""A bundle at trackers: a model with its digest, metrics and aliases."""

from collections.abc import Sequence
from pathlib import Path

from pneumo.pipeline.evaluation.results import values_by_split
from pneumo.pipeline.runs.history import flatten_metrics
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.training.tracking.interface import Artifact, TrackedRun
from pneumo.pipeline.training.tracking.tracker import Tracker
from pneumo.serving.model.bundle import Bundle


def track_bundle(
    bundle: Bundle,
    trackers: str,
    *,
    job: str,
    folder: Path,
    aliases: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> None:
    """Keep a bundle at trackers, in a tracked run that names its training run and data; TensorBoard keeps no models.

    The training run is not changed. The same bundle under another alias is the same version there. `job` is `export` or
    `promote`, `folder` the parent of wandb's files.
    """
    able = [each for each in trackers.split(",") if each != "tensorboard"]
    if len(able) < len(trackers.split(",")):
        reporter.warning("TensorBoard: keeps no models; wandb and mlflow do")
    info = bundle.info
    source = str(info.provenance.get("run") or info.id)
    facts = {
        "bundle": info.id,
        "digest": bundle.digest,
        "run": source,
        "git_commit": info.provenance.get("git_commit"),
        "data_fingerprint": info.data_fingerprint,
        "policy": info.policy,
        "parity": info.parity.model_dump(),
    }
    metrics = {split: values for split, values in values_by_split(info.metrics).items() if split != "train"}
    tracked = TrackedRun("-".join((source, job, *aliases)), facts, info.data_fingerprint, job_type=job)
    tracker = Tracker.start(",".join(able), tracked, folder, reporter)
    names = tuple(dict.fromkeys((info.version, *aliases)))
    told: dict[str, object] = {name: value for name, value in facts.items() if isinstance(value, str)}
    told |= flatten_metrics(facts) | flatten_metrics(metrics)
    tracker.keep(Artifact(info.name, bundle.folder, names, told))
    tracker.finish(metrics)
