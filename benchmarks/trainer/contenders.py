"""Peers of pneumo's trainer: Ludwig by default, Ludwig tuned, and a plain PyTorch loop."""

import contextlib
import io
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from trainer.meter import Clock, Measured

from pneumo.pipeline.config import Experiment
from pneumo.pipeline.data.manifest import Dataset, Split

EPOCHS = 2
BATCH = 32
CLIP = 0.5
"""Ludwig's default limit of the gradient's norm."""


def ludwig_config(experiment: Experiment, *, best: bool) -> dict[str, Any]:
    """The same experiment without what pneumo's configs and defaults decide, or with the best that Ludwig offers."""
    asked = experiment.document.override(()).data
    asked.pop("decisions", None)
    asked["backend"] = {"type": "local"}
    if not best:
        del asked["input_features"][0]["preprocessing"]["mode"]
        del asked["trainer"]["eval_batch_size"], asked["trainer"]["evaluate_training_set"]
    return asked


@contextlib.contextmanager
def networks_as_built() -> Iterator[None]:
    """No frozen batch norm is folded into a convolution in networks made meanwhile: that is pneumo's doing."""
    from pneumo.pipeline.ludwig.encoders import network

    fold = network.fold_frozen_norms
    network.fold_frozen_norms = lambda *_: 0
    try:
        yield
    finally:
        network.fold_frozen_norms = fold


def train_with_ludwig(asked: dict[str, Any], table: Path, folder: Path) -> Any:
    """Train as `ludwig train` does, without output; images are paths in a table."""
    from ludwig.api import LudwigModel

    with contextlib.redirect_stdout(io.StringIO()):
        model = LudwigModel(asked, logging_level=logging.ERROR)
        model.train(
            dataset=str(table),
            output_directory=str(folder),
            skip_save_processed_input=True,  # it would lie beside the images and change the next turn
        )
    shutil.rmtree(folder, ignore_errors=True)
    return model


def plain_loop(network: Any, dataset: Dataset, experiment: Experiment, folder: Path) -> Measured:
    """The loop that a person would write who knows torch's fast paths."""
    import torch

    from pneumo.pipeline.data.training_images import read_images

    result = Measured()
    called = Clock.read()
    preparation = experiment.preparation(dataset.info)
    positive = experiment.positive
    sets = []
    for split in (Split.TRAIN, Split.VALIDATION):
        rows = dataset.select(split)
        pixels = np.stack(read_images(dataset, rows, preparation)).transpose(0, 3, 1, 2)
        labels = torch.tensor([row.label == positive for row in rows], dtype=torch.float32)
        sets.append((torch.from_numpy(np.ascontiguousarray(pixels)), labels))
    (images, labels), (held_out, _) = sets
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps)

    def logits(pixels: Any) -> Any:
        inputs = pixels.float().div_(255)
        return network({"image": inputs})["label::logits"].reshape(-1)

    began = Clock.read()
    result.before = began - called
    for epoch in range(EPOCHS):
        network.train()
        since = Clock.read()
        for number, chosen in enumerate(torch.randperm(len(images)).split(BATCH)):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits(images[chosen]), labels[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            result.shown += len(chosen)
            if epoch == number == 0:
                since = Clock.read()
            else:
                result.images += len(chosen)
        evaluating = Clock.read()
        result.steps += evaluating - since
        network.eval()
        with torch.inference_mode():
            for pixels in held_out.split(BATCH):
                logits(pixels)
        result.evaluation += Clock.read() - evaluating
        torch.save({"weights": network.state_dict(), "optimizer": optimizer.state_dict()}, folder / "checkpoint.pt")
    result.epochs = Clock.read() - began
    return result
