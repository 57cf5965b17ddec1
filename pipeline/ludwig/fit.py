"""Ludwig's training of one network, with what pneumo adds to it. Ludwig is loaded when it begins."""

import logging
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Split
from pneumo.pipeline.ludwig import checkpoints, runtime
from pneumo.pipeline.ludwig.cluster.placement import Placement
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import Run
from pneumo.pipeline.runs.training_profile import Profile
from pneumo.serving.contracts.errors import InputError, first_line, first_problem

if TYPE_CHECKING:
    import pandas as pd


def fit(
    run: Run,
    experiment: Experiment,
    frame: "pd.DataFrame",
    placement: Placement | None,
    profiled: Profile | None,
    *,
    seed: int,
    reporter: Reporter = SILENT,
) -> Any:
    """Train a network into a run's `model/` and load its best weights.

    Args:
        run: The run; a checkpoint in it is continued.
        experiment: What to train.
        frame: Images, labels and splits; what is of the test split stays unseen.
        placement: Where on a cluster; None trains here.
        profiled: Told where the time goes.
        seed: Seed of weights and shuffling.
        reporter: Receives steps and evaluation rounds.

    Returns:
        Ludwig's model.

    Raises:
        InputError: Ludwig refuses the config, or a run with a model soup is to be resumed.
        KeyboardInterrupt: Training was stopped; the best weights so far are in `model/`.
    """
    if experiment.config["trainer"].get("model_soup") and checkpoints.find_latest(run):
        raise InputError(
            f"{run.name}: trainer.model_soup: Ludwig forgets on a resume which weights it averages; train anew"
        )
    from ludwig.api import LudwigModel
    from ludwig.error import ConfigValidationError
    from ludwig.globals import set_disable_progressbar

    from pneumo.pipeline.ludwig.callback import TrainingCallback
    from pneumo.pipeline.ludwig.pixel_backend import PixelBackend

    callback = TrainingCallback(run, experiment.label, reporter)
    try:
        with runtime.skip_schema_check():
            settings = {**experiment.config, "backend": {"type": "local"}}  # a saved model must not start a cluster
            backend = PixelBackend()
            if placement:
                from pneumo.pipeline.ludwig.cluster.driver import ClusterBackend

                backend = ClusterBackend(run, placement)
            callbacks: list[Any] = [callback]
            if profiled:
                from pneumo.pipeline.ludwig.trainer_profile import ProfilingCallback

                callbacks.append(ProfilingCallback(profiled))
            model = LudwigModel(settings, logging_level=logging.INFO, backend=backend, callbacks=callbacks)
    except (ConfigValidationError, ValidationError) as error:
        reason = first_line(error) if not isinstance(error, ValidationError) else first_problem(error)
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
    if checkpoints.find_best_weights(run) is None:
        raise InputError(f"{run.folder}: no evaluation round was finished; resume it with `pneumo train --resume`")
    with runtime.skip_schema_check():
        model = LudwigModel(load_json(str(run.model / MODEL_HYPERPARAMETERS_FILE_NAME)), backend="local")
        metadata: Any = load_metadata(str(run.model / TRAIN_SET_METADATA_FILE_NAME))
        model.training_set_metadata = metadata
        model._get_or_create_model(model.config_obj)
    _keep_best(run, model)


def _keep_best(run: Run, model: Any) -> None:
    """Save the best weights so far as the run's model, where an evaluation round was finished."""
    best = checkpoints.find_best_weights(run)
    if model.model is None or best is None:
        return
    from safetensors.torch import load_file

    model.model.load_state_dict(load_file(best), strict=False)
    model.save(str(run.model))
