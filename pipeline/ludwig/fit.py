"""Ludwig's training of one network, with what pneumo adds to it. Ludwig is loaded when it begins."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.ludwig import checkpoints, runtime
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.training import cluster
from pneumo.pipeline.training.profile_report import Profile
from pneumo.serving.contracts.errors import InputError, first_problem

if TYPE_CHECKING:
    import pandas as pd

    from pneumo.pipeline.ludwig.callback import Step


def fit(
    run: Run,
    experiment: Experiment,
    frame: "pd.DataFrame",
    placement: cluster.Placement | None,
    profiled: Profile | None,
    *,
    seed: int,
    report: "Callable[[Step], None] | None",
    after_round: "Callable[[dict[str, Any], float], None] | None" = None,
) -> Any:
    """Train a network into a run's `model/` and load its best weights.

    Args:
        run: The run; a checkpoint in it is continued.
        experiment: What to train.
        frame: Images, labels and splits; what is of the test split stays unseen.
        placement: Where on a cluster; None trains here.
        profiled: Told where the time goes.
        seed: Seed of weights and shuffling.
        report: Told after each step.
        after_round: Told of each evaluation round once its checkpoint is whole: the entry of `history.json`, and the
            seconds since training began.

    Returns:
        Ludwig's model.

    Raises:
        InputError: Ludwig refuses the config, or a run with a model soup is to be resumed.
        KeyboardInterrupt: Training was stopped; the best weights so far are in `model/`.
    """
    if experiment.config["trainer"].get("model_soup") and checkpoints.latest(run):
        raise InputError(
            f"{run.name}: trainer.model_soup: Ludwig forgets on a resume which weights it averages; train anew"
        )
    from ludwig.api import LudwigModel
    from ludwig.error import ConfigValidationError
    from ludwig.globals import set_disable_progressbar

    from pneumo.pipeline.ludwig.callback import TrainingCallback
    from pneumo.pipeline.ludwig.pixel_backend import PixelBackend

    callback = TrainingCallback(run, experiment.label, report, after_round)
    try:
        with runtime.checked_config():
            settings = {**experiment.config, "backend": {"type": "local"}}  # a saved model must not start a cluster
            backend = cluster.backend(run, placement) if placement else PixelBackend()
            callbacks = [callback, *([profiled.callback()] if profiled else [])]
            model = LudwigModel(settings, logging_level=logging.INFO, backend=backend, callbacks=callbacks)
    except (ConfigValidationError, ValidationError) as error:
        reason = str(error).splitlines()[0] if not isinstance(error, ValidationError) else first_problem(error)
        raise InputError(f"{experiment.document.name}: Ludwig refuses it: {reason}") from None
    set_disable_progressbar(True)  # type: ignore[no-untyped-call]
    fitting = frame[frame["split"] != int(Split.TEST)]  # Ludwig evaluates a test split every epoch where it sees one
    try:
        model.train(
            dataset=fitting,
            model_resume_path=str(run.folder),
            skip_save_training_description=True,
            skip_save_training_statistics=True,
            skip_save_processed_input=True,
            skip_save_log=True,
            random_seed=seed,
        )
        if callback.stopping:
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        _keep_best(run, model)
        raise
    return model


def save_best(run: Run) -> None:
    """Make the best weights of a run that was stopped its model, where it has none yet.

    Raises:
        InputError: No evaluation round was finished.
    """
    from ludwig.api import LudwigModel
    from ludwig.data.preprocessing import load_metadata
    from ludwig.globals import MODEL_HYPERPARAMETERS_FILE_NAME, TRAIN_SET_METADATA_FILE_NAME
    from ludwig.utils.data_utils import load_json

    if list(run.model.glob("model_weights*")):
        return
    if checkpoints.best_weights(run) is None:
        raise InputError(f"{run.folder}: no evaluation round was finished; resume it with `pneumo train --resume`")
    with runtime.checked_config():
        model = LudwigModel(load_json(str(run.model / MODEL_HYPERPARAMETERS_FILE_NAME)), backend="local")
        metadata: Any = load_metadata(str(run.model / TRAIN_SET_METADATA_FILE_NAME))
        model.training_set_metadata = metadata
        model._get_or_create_model(model.config_obj)
    _keep_best(run, model)


def _keep_best(run: Run, model: Any) -> None:
    """Save the best weights so far as the run's model, where an evaluation round was finished."""
    best = checkpoints.best_weights(run)
    if model.model is None or best is None:
        return
    from safetensors.torch import load_file

    model.model.load_state_dict(load_file(best), strict=False)
    model.save(str(run.model))
