"""Reads event files with TensorBoard's own reader."""

from pathlib import Path


def read_events(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
    """Return step, wall time and value of each scalar below `tensorboard/` by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.wall_time, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def read_texts(folder: Path) -> dict[str, str]:
    """Return every text below `tensorboard/` by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: b"".join(events.Tensors(tag)[0].tensor_proto.string_val).decode()
        for tag in events.Tags()["tensors"]
        if not tag.startswith("_hparams_")
    }
