"""Train one network with Ludwig. Ludwig is imported when training begins."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.config.selection_metric import BASE, is_ludwigs
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.data.training_images import name_for_ludwig
from pneumo.pipeline.ludwig import checkpoints, compat, runtime
from pneumo.pipeline.ludwig.cluster.placement import Placement
from pneumo.pipeline.ludwig.global_state import restore_ludwig_state
from pneumo.pipeline.runs.provenance import read_git_commit
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.serving.contracts.errors import InputError, first_line, first_problem

if TYPE_CHECKING:
    import pandas as pd
    from ludwig.callbacks import Callback

    from pneumo.pipeline.ludwig import protocols


@dataclass(frozen=True)
class FitOptions:
    """Options of a training that do not belong to its config."""

    seed: int  # of weights and shuffling
    reporter: Reporter
    placement: Placement | None = None  # None trains in this process
    profile: bool = False  # of a few steps, into the run's `profile/`
    epoch_metric: "protocols.EpochMetric | None" = None  # chooses the best epoch instead of one of Ludwig's


@restore_ludwig_state()
def fit(run: Run, experiment: Experiment, frame: "pd.DataFrame", options: FitOptions) -> "protocols.LudwigModel":
    """Train a network into a run's `model/`, from its checkpoint if there is one, and load its best weights.

    The frame holds images, labels and splits; its test split is not used.

    Raises:
        InputError: Ludwig refuses the config, or a run with a model soup would be resumed.
        KeyboardInterrupt: Training was stopped; the best weights so far are in `model/`.
    """
    if experiment.config["trainer"].get("model_soup") and checkpoints.find_latest(run):
        raise InputError(f"{run.name}: trainer.model_soup: Ludwig cannot resume a model soup; train a new run")
    from ludwig.api import LudwigModel
    from ludwig.error import ConfigValidationError

    from pneumo.pipeline.ludwig.callback import TrainingCallback
    from pneumo.pipeline.ludwig.feature_cache import FeatureCache
    from pneumo.pipeline.ludwig.pixel_backend import PixelBackend
    from pneumo.pipeline.ludwig.trainer_profile import ProfilingCallback

    for part in ("fit", *(("profile",) if options.profile else ()), *(("cluster",) if options.placement else ())):
        compat.check_names(part, options.reporter.warning)
    cache = FeatureCache(options.seed, options.reporter)
    callback = TrainingCallback(run, experiment.label, options.reporter, options.epoch_metric, cache)
    profiling = [ProfilingCallback(run.folder / "profile")] if options.profile else []
    callbacks: list[Callback] = [callback, *profiling]
    backend = PixelBackend(cache)
    if options.placement:
        from pneumo.pipeline.ludwig.cluster.driver import ClusterBackend

        backend = ClusterBackend(run, options.placement)
    settings = {**experiment.config, "backend": {"type": "local"}}  # loading the saved model must not start a cluster
    if not is_ludwigs(settings["trainer"]["validation_metric"]):
        settings["trainer"] = settings["trainer"] | {"validation_metric": BASE}
    label = dict(experiment.config["output_features"][0])
    if experiment.positive is not None:
        positive = {"fallback_true_label": name_for_ludwig(experiment.positive)}
        label["preprocessing"] = label["preprocessing"] | positive
    if weights := (label.get("loss") or {}).get("class_weights"):
        own = {name_for_ludwig(name): weight for name, weight in weights.items()}
        label["loss"] = label["loss"] | {"class_weights": own}
    settings["output_features"] = [label]
    try:
        with runtime.skip_schema_check():
            model: Any = LudwigModel(settings, logging_level=logging.INFO, backend=backend, callbacks=callbacks)
    except (ConfigValidationError, ValidationError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else first_line(error)
        raise InputError(f"{experiment.document.name}: Ludwig refuses it: {reason}") from None
    # Ludwig's own prints git's error in a repository without a commit, such as after `pneumo init`
    git = runtime.replace_attribute(
        sys.modules.get("ludwig.experiment_utils"), "get_commit_hash", lambda: read_git_commit(Path())
    )
    try:
        with git, _register(options.epoch_metric):
            model.train(
                dataset=frame[frame["split"] != int(Split.TEST)],  # else Ludwig evaluates the test split in every epoch
                model_resume_path=str(run.folder),
                skip_save_training_description=True,
                skip_save_training_statistics=True,
                skip_save_processed_input=True,
                skip_save_log=True,
                random_seed=options.seed,
            )
        if callback.stopping:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        _save_best_weights(run, model)
        raise
    trained: protocols.LudwigModel = model
    return trained


@contextmanager
def _register(metric: "protocols.EpochMetric | None") -> Iterator[None]:
    """Let Ludwig know for a while that a metric is to be maximised."""
    from ludwig.modules.metric_registry import metric_objective_registry

    if metric:
        metric_objective_registry[metric.name] = "maximize"
    try:
        yield
    finally:
        if metric:
            del metric_objective_registry[metric.name]


@restore_ludwig_state()
def save_best(run: Run) -> None:
    """Save the best weights of a stopped run as its model, unless it has a model already.

    Raises:
        InputError: No evaluation round was finished.
    """
    from ludwig.api import LudwigModel
    from ludwig.data.preprocessing import load_metadata
    from ludwig.globals import MODEL_HYPERPARAMETERS_FILE_NAME, TRAIN_SET_METADATA_FILE_NAME

    if any(run.model.glob("model_weights*")):
        return
    if checkpoints.find_best_weights(run) is None:
        raise InputError(f"{run.folder}: no evaluation round was finished; resume it with `pneumo train --resume`")
    settings = json.loads((run.model / MODEL_HYPERPARAMETERS_FILE_NAME).read_text(encoding="utf-8"))
    encoder = settings["input_features"][0]["encoder"]
    if any(part.get("trainable") is False for part in (encoder, *encoder.get("members", ()))):
        # a checkpoint lacks frozen weights: they are loaded, or drawn, as at the start of the training
        encoder["saved_weights_in_checkpoint"] = False
    with runtime.skip_schema_check():
        model: Any = LudwigModel(settings, backend="local")
        model.training_set_metadata = load_metadata(str(run.model / TRAIN_SET_METADATA_FILE_NAME))
        model.model = LudwigModel.create_model(model.config_obj, random_seed=run.info().seed)
    _save_best_weights(run, model)


def _save_best_weights(run: Run, model: "protocols.LudwigModel") -> None:
    """Save the best weights so far as the run's model, if an evaluation round was finished."""
    best = checkpoints.find_best_weights(run)
    if model.model is None or best is None:
        return
    from safetensors.torch import load_file

    model.model.load_state_dict(load_file(best), strict=False)
    model.save(str(run.model))
