"""Internal names of Ludwig and Ray that pneumo relies on, in one table, and their check when a part is loaded.

A version that lacks a needed name is refused in one line. A speed-up that lacks one gives way to Ludwig's own way, with
one line.
"""

import dis
import functools
import importlib
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from pneumo.pipeline.ludwig import components
from pneumo.serving.contracts.errors import MachineError, first_line

VERSIONS = {"Ludwig": "0.17.10", "Ray": "2.60.0"}
"""Versions that pneumo was written for."""

_TABLE = """
ludwig.fit | load | speed-up | Ludwig asks git for the commit
  ludwig.experiment_utils get_commit_hash
ludwig.runtime | load | speed-up | Ludwig checks each config once more, in 3 s
  ludwig.schema.model_types.base check_schema
ludwig.trainer_speed | load | speed-up | training metrics are updated at each step
  ludwig.features.base_feature:OutputFeature _metric_functions
  ludwig.models.base:BaseModel eval_loss eval_loss_metric eval_additional_losses_metrics outputs_to_predictions
  ludwig.modules.metric_modules MeanMetric
  ludwig.modules.metric_registry get_metric_tensor_input(metric_name)
ludwig.trainer_speed | fit | speed-up | training metrics are updated at each step
  ludwig.trainers.trainer:Trainer _update_training_metrics(model_outputs, targets)
ludwig.pixel_backend.scaling | load | speed-up | images are kept as float32, in four times the memory
  ludwig.features.image_feature:ImageFeatureMixin _read_image_if_bytes_obj_and_resize(img_height, img_width)
  ludwig.features.image_feature:ImageFeatureMixin _read_image_if_bytes_obj_and_resize(num_channels, standardize_image)
  ludwig.features.image_feature:ImageFeatureMixin _read_image_if_bytes_obj_and_resize(channel_class_map)
ludwig.pixel_backend | load | needed | give Ludwig images and take its batches
  ludwig.backend.base:Backend __init__(dataset_manager)
  ludwig.backend.base:LocalBackend read_binary_files(column, map_fn, file_size)
  ludwig.data.batcher.random_access:RandomAccessBatcher _compute_steps_per_epoch total_size batch_size ignore_last
  ludwig.data.dataset.pandas:PandasDataset dataset features get(proc_column, idx)
  ludwig.data.dataset.pandas:PandasDataset initialize_batcher(batch_size, should_shuffle, random_seed, ignore_last)
  ludwig.data.dataset.pandas:PandasDataset initialize_batcher(distributed, augmentation_pipeline)
  ludwig.data.dataset.pandas:PandasDatasetManager create(dataset, config, training_set_metadata)
  ludwig.data.sampler:DistributedSampler epoch
  ludwig.features.image_feature:ImageInputFeature encoder_obj proc_column
ludwig.feature_cache | load | speed-up | a frozen network computes features at each step
  ludwig.data.sampler:DistributedSampler set_epoch
ludwig.encoders | load | needed | read the options of encoders
  ludwig.schema.utils _LudwigModelMeta _LegacyFieldMarker(marshmallow_field)
  ludwig.schema.utils:SchemaField _deserialize(value, attr, data) _jsonschema_type_mapping
  ludwig.utils.torch_utils:LudwigModule output_shape
ludwig.losses | load | needed | name a loss
  ludwig.schema.features.loss.loss:BaseLossConfig name
ludwig.inference | load | needed | read the outputs of a network
  ludwig.utils.output_feature_utils get_feature_concat_name(feature_name, tensor_name)
  ludwig.utils.torch_utils:Dense dense
ludwig.callback | load | needed | follow and resume a training
  ludwig.callbacks:Callback on_trainer_train_setup(trainer, save_path, is_coordinator) on_trainer_train_teardown
  ludwig.callbacks:Callback on_batch_start on_batch_end on_checkpoint on_epoch_start on_eval_start on_eval_end
  ludwig.callbacks:Callback on_validation_end
  ludwig.utils.metric_utils TrainerMetric
  ludwig.utils.trainer_utils:ProgressTracker __init__(batch_size, steps, epoch, learning_rate)
  ludwig.utils.trainer_utils:ProgressTracker __init__(train_metrics, validation_metrics, test_metrics)
ludwig.callback | fit | needed | follow and resume a training
  ludwig.modules.lr_scheduler:LRScheduler step _eval_scheduler
  ludwig.trainers.trainer:Trainer config device distributed evaluate_training_set model optimizer scheduler
  ludwig.trainers.trainer:Trainer total_steps validation_field validation_metric _validation_metric
  ludwig.modules.metric_registry metric_objective_registry
ludwig.fit | load | needed | save a model and load it
  ludwig.data.preprocessing load_metadata
  ludwig.globals set_disable_progressbar is_progressbar_disabled MODEL_WEIGHTS_FILE_NAME=model_weights
  ludwig.globals MODEL_HYPERPARAMETERS_FILE_NAME TRAIN_SET_METADATA_FILE_NAME
ludwig.checkpoints | fit | needed | find checkpoints
  ludwig.globals TRAINING_PROGRESS_TRACKER_FILE_NAME=training_progress.json
  ludwig.globals TRAINING_CHECKPOINTS_DIR_PATH=training_checkpoints
  ludwig.utils.checkpoint_utils BEST=best LATEST=latest
ludwig.trainer_profile | profile | needed | name the parts of a step
  ludwig.trainers.trainer:Trainer _forward_pass _backward_pass _optimizer_step
ludwig.cluster | cluster | needed | train on workers
  ludwig.backend.base:LocalBackend create_trainer(config, model)
  ludwig.distributed init_dist_strategy
  ludwig.distributed.base:LocalStrategy size rank local_rank barrier to_device allreduce broadcast broadcast_object
  ludwig.distributed.base:LocalStrategy prepare(model, trainer_config, base_learning_rate)
  ludwig.distributed.base:LocalStrategy prepare_model_update(model, should_step)
  ludwig.trainers.registry get_trainers_registry
  ludwig.trainers.trainer:Trainer callback(fn, coordinator_only) callbacks
  ludwig.trainers.trainer:Trainer _eval_and_checkpoint _has_nan_or_inf_weights(model)
  ray.train.v2.api.exceptions:WorkerGroupError worker_failures
  ray.train.v2._internal.exceptions:WorkerHealthCheckFailedError health_check_failure
training.cluster | ray | needed | start a cluster in a folder of its own
  ray init(_temp_dir)
sweep.experiments | tune | needed | read the trials of a sweep
  ray.tune:ResultGrid _experiment_analysis
"""
"""Module of `pneumo.pipeline`, when it is checked, if it is needed, and for what, or what happens without it. Below it,
modules and classes with their names: `name`, `function(parameter, ...)` or `CONSTANT=value`."""
_NAME = re.compile(r"(\w+)(?:\(([^)]*)\)|=(\S+))?")
_LOG = logging.getLogger("pneumo")
_WARNED: set[str] = set()


@dataclass(frozen=True)
class Reach:
    """Internal names that a module relies on."""

    user: str
    when: str
    kind: str  # `needed` or `speed-up`
    purpose: str
    names: list[tuple[str, str, str, str]] = field(default_factory=list)  # owner, name, parameters, value


def _read_table() -> list[Reach]:
    reaches: list[Reach] = []
    for line in _TABLE.strip().splitlines():
        if line.startswith(" "):
            owner, _, names = line.strip().partition(" ")
            reaches[-1].names.extend((owner, *each) for each in _NAME.findall(names))
        else:
            user, when, kind, purpose = line.split(" | ")
            reaches.append(Reach(user, when, kind, purpose))
    return reaches


REACHES = _read_table()


def check_ludwig(warn: Callable[[str], object]) -> None:
    """Register pneumo's components with the loaded Ludwig, and check its internal names; `warn` gets one line each.

    Raises:
        MachineError: A needed name is missing, or a component cannot be registered.
    """
    others = ("callback", "pixel_backend", "trainer_profile")
    for name, failure in components.register(*(f"pneumo.pipeline.ludwig.{name}" for name in others)).items():
        raise MachineError(f"{_describe('Ludwig')} does not take {name}: {first_line(failure)}; {_fix('Ludwig')}")
    check_names("load", warn)


def check_names(when: str, warn: Callable[[str], object] = _LOG.warning) -> None:
    """Check the internal names of a part and import their modules; `warn` gets a line, once, for a lost speed-up.

    Raises:
        MachineError: A needed name is missing.
    """
    for reach in REACHES:
        missing = list(_find_missing(reach)) if reach.when == when else []
        if missing:
            package = missing[0].partition(".")[0].title()
            lacks = f"{_describe(package)} lacks {', '.join(missing)}"
            if reach.kind == "needed":
                raise MachineError(f"{lacks}, which pneumo needs to {reach.purpose}; {_fix(package)}")
            if lacks not in _WARNED:
                _WARNED.add(lacks)
                warn(f"{lacks}; {reach.purpose}")


def has_names(user: str) -> bool:
    """Return whether Ludwig has all names that a module relies on."""
    return not any(name for reach in REACHES if reach.user == user for name in _find_missing(reach))


def _describe(package: str) -> str:
    return f"{package} {version(package.lower())} (pneumo was written for {VERSIONS[package]})"


def _fix(package: str) -> str:
    return f"run `pip install {package.lower()}=={VERSIONS[package]}`"


def _find_missing(reach: Reach) -> Iterator[str]:
    """Yield the dotted names that are gone, with the parameter or value that they lack."""
    list_attributes = functools.cache(_list_attributes)
    for owner, name, parameters, value in reach.names:
        module, _, kind = owner.partition(":")
        dotted = f"{owner.replace(':', '.')}.{name}"
        try:
            holder: Any = importlib.import_module(module)
            holder = getattr(holder, kind) if kind else holder
            found = getattr(holder, name, None)
        except (ImportError, AttributeError):
            yield dotted
            continue
        if found is None and not (kind and name in list_attributes(holder)):
            yield dotted
        elif value and found != value:
            yield f"{dotted}={value}"
        elif parameters and found is not None:
            code = getattr(inspect.unwrap(found), "__code__", None)
            taken = {
                *inspect.signature(found).parameters,
                *(code.co_consts if code else ()),
            }  # `kwargs.pop("_temp_dir")`
            yield from (f"{dotted}({parameter})" for parameter in parameters.split(", ") if parameter not in taken)


def _list_attributes(kind: type) -> set[str]:
    """Return the attributes that the methods of a class set."""
    methods = [inspect.unwrap(value) for base in kind.__mro__ for value in vars(base).values() if callable(value)]
    codes = [method.__code__ for method in methods if inspect.isfunction(method)]
    return {step.argval for code in codes for step in dis.get_instructions(code) if step.opname == "STORE_ATTR"}
