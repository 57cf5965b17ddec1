"""What makes training faster leaves its results alone: each part against Ludwig as it comes."""

import dataclasses
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pneumo.pipeline import training
from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset, Split
from pneumo.pipeline.data.training_images import ludwig_frame, read_images
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.runs.run import Status
from pneumo.serving.images.preparation import Preparation

# a bias before batch norm has no gradient but rounding, which AdamW would scale up to a full step
BINARY = ["trainer.optimizer={type: adamw, eps: 0.01, weight_decay: 0.01}"]
CATEGORY = ["output_features.0={name: label, type: category}", "trainer.validation_metric=loss"]


@pytest.fixture(scope="module")
def frame(dataset: Dataset) -> pd.DataFrame:
    """Return training and validation images of the phantoms at 32 pixels."""
    rows = [row for row in dataset.rows if row.split is not Split.TEST]
    images = read_images(dataset, rows, Preparation(size=64, height=32, width=32, channels=1))
    return ludwig_frame(rows, images, image="image", label="label")


def fit(experiment: Experiment, frame: pd.DataFrame, folder: Path, callback: Any, backend: Any = None) -> Any:
    """Train a network for two epochs with Ludwig."""
    from ludwig.api import LudwigModel

    model = LudwigModel(experiment.config, callbacks=[callback], backend=backend)
    model.train(dataset=frame, output_directory=str(folder), random_seed=5, skip_save_processed_input=True)
    return model


def variant(tiny: Experiment, overrides: list[str]) -> Experiment:
    return dataclasses.replace(tiny, document=tiny.document.override(["trainer.epochs=2", *overrides]))


def make_watch() -> Any:
    """Make a callback class that keeps Ludwig's metrics; a subclass may start something with the trainer."""
    from ludwig.callbacks import Callback

    class Watch(Callback):
        def on_trainer_train_setup(self, trainer: Any, *_: Any, **__: Any) -> None:
            self.metrics = self.rounds(trainer)

        def rounds(self, trainer: Any) -> Any:
            return None

        def on_trainer_train_teardown(self, trainer: Any, progress_tracker: Any, *_: Any, **__: Any) -> None:
            self.measured = (progress_tracker.train_metrics, progress_tracker.validation_metrics)

    return Watch


@pytest.fixture(scope="module")
def plain(ludwig: ModuleType, tiny: Experiment, frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train a network for a binary label with plain Ludwig; return it and its callback."""
    watch = make_watch()()
    return fit(variant(tiny, BINARY), frame, tmp_path_factory.mktemp("plain"), watch), watch


@pytest.mark.parametrize(
    "overrides",
    [BINARY, pytest.param(CATEGORY, marks=[pytest.mark.slow, pytest.mark.lengthy])],
    ids=["binary", "category"],
)
def test_pixels_kept_as_bytes_and_metrics_once_a_round_change_no_bit(
    plain: Any, tiny: Experiment, frame: pd.DataFrame, tmp_path: Path, overrides: list[str]
) -> None:
    from pneumo.pipeline.ludwig.pixel_backend import PixelBackend
    from pneumo.pipeline.ludwig.trainer_speed import RoundMetrics

    class Faster(make_watch()):  # type: ignore[misc]
        def rounds(self, trainer: Any) -> Any:
            return RoundMetrics(trainer)

        def on_epoch_start(self, *_: Any, **__: Any) -> None:
            self.metrics.batches = []

        def on_eval_start(self, *_: Any, **__: Any) -> None:
            assert self.metrics.batches
            self.metrics.flush()

    experiment = variant(tiny, overrides)
    faster = Faster()
    if overrides is BINARY:
        one, watch = plain
    else:
        watch = make_watch()()
        one = fit(experiment, frame, tmp_path / "plain", watch)
    other = fit(experiment, frame, tmp_path / "faster", faster, PixelBackend())

    assert len(frame[frame["split"] == 0]) % 16, "the last batch must not be full, or a mean by batch is one by image"
    assert watch.measured == faster.measured
    assert len(watch.measured[0]["label"]["loss"]) == 2
    weights = other.model.state_dict()
    for name, tensor in one.model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), weights[name].numpy(), err_msg=name)


def test_channels_last_and_the_fused_optimizer_change_rounding_only(
    plain: Any, tiny: Experiment, frame: pd.DataFrame, tmp_path: Path
) -> None:
    import torch
    from ludwig.callbacks import Callback

    from pneumo.pipeline.ludwig.trainer_speed import use_channels_last, use_fused_optimizer

    class Faster(Callback):
        def on_trainer_train_setup(self, trainer: Any, *_: Any, **__: Any) -> None:
            use_channels_last(trainer)
            use_fused_optimizer(trainer)
            self.trainer = trainer

    callback = Faster()
    faster = fit(variant(tiny, BINARY), frame, tmp_path, callback).model.state_dict()

    assert all(group["fused"] for group in callback.trainer.optimizer.param_groups)
    kernels = [tensor for tensor in faster.values() if tensor.dim() == 4 and min(tensor.shape[1:]) > 1]
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
    for name, tensor in plain[0].model.state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), faster[name].numpy(), atol=2e-4, err_msg=name)


def test_moments_of_another_layout_are_laid_out_as_their_weights(ludwig: ModuleType) -> None:
    """Resume a run that began without channels last: on a GPU or on several workers."""
    from types import SimpleNamespace

    import torch

    from pneumo.pipeline.ludwig.trainer_speed import use_fused_optimizer

    gradients = torch.randn(2, 4, 3, 3, 3, generator=torch.Generator().manual_seed(1))

    def resumed(*, fused: bool) -> torch.Tensor:
        weights = torch.nn.Parameter(torch.ones(4, 3, 3, 3).to(memory_format=torch.channels_last))
        optimizer = torch.optim.AdamW([weights], lr=0.01)
        for step, gradient in enumerate(gradients):
            weights.grad = gradient.to(memory_format=torch.channels_last)
            if step and fused:
                state = optimizer.state[weights]
                state.update({name: state[name].contiguous() for name in ("exp_avg", "exp_avg_sq")})
                use_fused_optimizer(SimpleNamespace(device="cpu", optimizer=optimizer))
            optimizer.step()
        return weights.detach()

    torch.testing.assert_close(resumed(fused=True), resumed(fused=False))


def test_images_of_another_size_are_left_to_ludwig(ludwig: ModuleType) -> None:
    from functools import partial

    import torch
    from ludwig.features.image_feature import ImageFeatureMixin

    from pneumo.pipeline.ludwig.pixel_backend import PixelBackend

    wanted: dict[str, Any] = {
        "img_width": 8,
        "img_height": 8,
        "should_resize": True,
        "num_channels": 1,
        "resize_method": "interpolate",
        "user_specified_num_channels": True,
        "standardize_image": None,
        "channel_class_map": torch.Tensor([]),
    }
    read = partial(ImageFeatureMixin._read_image_if_bytes_obj_and_resize, **wanted)
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    large = np.zeros((16, 16, 1), np.uint8)

    kept = PixelBackend.read_binary_files(pd.Series([pixels, pixels]), read)
    resized = PixelBackend.read_binary_files(pd.Series([pixels, large]), read)

    assert [image.dtype for image in kept] == [np.uint8, np.uint8]
    assert kept[0].shape == (1, 8, 8)
    assert [image.dtype for image in resized] == [np.float32, np.float32]
    assert resized[1].shape == (1, 8, 8)


def test_mixed_precision_without_a_gpu_is_off_and_said_in_a_line(
    ludwig: ModuleType, tiny: Experiment, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    said: list[str] = []

    run = training.train(
        variant(tiny, ["trainer.epochs=1", "trainer.use_mixed_precision=true"]),
        dataset,
        root=tmp_path,
        reporter=Reporter(said.append),
    )

    assert said.count("trainer.use_mixed_precision needs a GPU and there is none: training in float32") == 1
    assert run.info().status is Status.DONE


@pytest.mark.parametrize(("images", "batch"), [(33, 16), (32, 16), (34, 16), (1, 16), (17, 17), (5, 1), (16, 1)])
def test_steps_are_counted_as_they_are_made(ludwig: ModuleType, images: int, batch: int) -> None:
    from ludwig.data.sampler import DistributedSampler

    from pneumo.pipeline.ludwig.pixel_backend import CountedBatcher

    class Numbers:
        features = ("x",)

        def get(self, name: str, positions: list[int]) -> np.ndarray:
            return np.array(positions)

    batcher = CountedBatcher(Numbers(), DistributedSampler(images, shuffle=False), batch, ignore_last=True)
    batcher.set_epoch(0, batch)
    steps = 0
    while not batcher.last_batch():
        batcher.next_batch()
        steps += 1
    assert batcher.steps_per_epoch == steps


def test_a_last_batch_of_one_image_leaves_rounds_at_the_ends_of_epochs(
    ludwig: ModuleType, tiny: Experiment, frame: pd.DataFrame, tmp_path: Path
) -> None:
    from ludwig.callbacks import Callback

    from pneumo.pipeline.ludwig.pixel_backend import PixelBackend

    class Watch(Callback):
        def on_trainer_train_teardown(self, trainer: Any, progress_tracker: Any, *_: Any, **__: Any) -> None:
            rounds = progress_tracker.validation_metrics["label"]["loss"]
            self.seen = [(int(entry[0]), int(entry[1])) for entry in rounds]

    training_rows = frame[frame["split"] == 0]
    some = pd.concat([training_rows[: 2 * 16 + 1], frame[frame["split"] == 1]])
    watch = Watch()
    fit(variant(tiny, []), some, tmp_path, watch, PixelBackend())
    assert watch.seen == [(1, 2), (2, 4)]
