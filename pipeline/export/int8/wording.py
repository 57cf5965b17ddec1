"""What a quantisation changed, in words."""

from pneumo.serving.model.bundle import Change, Quantization


def describe_quantization(made: Quantization) -> list[str]:
    """Lines of Markdown for the model card, below those on the float graph."""
    left = len(made.float_nodes)
    speeds = " and ".join(f"{speed.ratio:.2f} with a batch of {speed.batch}" for speed in made.speed)
    return [
        "That was the float graph, and so are all metrics of this card. This bundle holds a graph made from it that "
        "computes",
        f"in 8-bit integers but for {left} of {made.integer_nodes + left} convolutions, by {made.calibration_images} "
        "validation images.",
        "",
        f"On the {made.images} validation images of {made.patients} other patients, at the same threshold:",
        "",
        f"- change of AUROC {describe_change(made.auroc, '+.4f')}",
        f"- decisions that are others {describe_change(made.decisions, '.1%')}",
        f"- answers that are certain instead of uncertain, or the other way round {made.certainty:.1%}",
        f"- largest change of a probability {made.max_probability_difference:.3f}",
        f"- root mean square change of log odds {made.log_odds:.3f}",
        f"- speed, as the ratio of processor time on one core, {speeds} ({made.processor}, {made.runtime})",
        "",
        "On x64 processors without VNNI instructions, exact kernels are taken that are hardly faster than float.",
    ]


def describe_change(change: Change, form: str) -> str:
    """A change with its interval, such as `+0.0010 (-0.0020 to +0.0030)`."""
    if change.low is None or change.high is None:
        return f"{change.value:{form}}"
    return f"{change.value:{form}} ({change.low:{form}} to {change.high:{form}})"
