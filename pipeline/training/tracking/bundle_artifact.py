"""A bundle at Weights & Biases: an artifact with its digest and figures, under the names that it goes by."""

from collections.abc import Sequence
from pathlib import Path

from pneumo.pipeline.evaluation.results import values_by_split
from pneumo.pipeline.runs.reporter import SILENT, Reporter, TrackingMode
from pneumo.pipeline.training.tracking.tracker import Artifact, Tracker
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
    """Keep a bundle as an artifact of kind `model`, in a run of its own that names training run and data.

    The training run stays as it ended; the same bundle kept again under another alias is the same version there.

    Args:
        bundle: The sealed bundle.
        mode: Where to.
        job: What is done with it: `export` or `promote`.
        folder: What wandb writes goes below it.
        aliases: Names of this version besides its own, such as `champion`.
        reporter: Receives progress.
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
    values = {split: found for split, found in values_by_split(info.metrics).items() if split != "train"}
    tracker = Tracker.start(
        mode,
        run_name="-".join((source, job, *aliases)),
        config=facts,
        folder=folder,
        data_fingerprint=info.data_fingerprint,
        job_type=job,
        reporter=reporter,
    )
    names = tuple(dict.fromkeys((info.version, *aliases)))
    tracker.finish(values, artifacts=[Artifact(info.name, bundle.folder, aliases=names, facts=facts | values)])
