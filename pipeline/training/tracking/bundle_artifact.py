"""A bundle at Weights & Biases: an artifact with its digest, metrics and aliases."""

from collections.abc import Sequence
from pathlib import Path

from pneumo.pipeline.evaluation.results import values_by_split
from pneumo.pipeline.runs.reporter import SILENT, Reporter, TrackingMode
from pneumo.pipeline.training.tracking.tracker import Artifact, TrackedRun, Tracker
from pneumo.serving.model.bundle import Bundle


def track_bundle(
    bundle: Bundle,
    mode: TrackingMode,
    *,
    job: str,
    folder: Path,
    aliases: Sequence[str] = (),
    reporter: Reporter = SILENT,
) -> None:
    """Upload a bundle as an artifact of kind `model`, in a tracked run that names its training run and data.

    The training run is not changed. The same bundle under another alias is the same version there. `job` is `export` or
    `promote`, `folder` the parent of wandb's files.
    """
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
    tracker = Tracker.start(mode, tracked, folder, reporter)
    names = tuple(dict.fromkeys((info.version, *aliases)))
    tracker.finish(metrics, artifact=Artifact(info.name, bundle.folder, aliases=names, facts=facts | metrics))
