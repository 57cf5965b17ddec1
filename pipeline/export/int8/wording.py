"""The changes of a quantisation in words."""

from pneumo.serving.model.bundle import Figure, Quantization


def describe_quantization(quantization: Quantization) -> list[str]:
    """Return lines of Markdown for the model card, to follow those about the float graph."""
    floats = len(quantization.float_nodes)
    return [
        "That is the float graph, which all metrics of this card are of. This bundle holds a graph made from it that",
        f"computes in 8-bit integers except for {floats} of {quantization.integer_nodes + floats} convolutions, by "
        f"{quantization.calibration_images} validation images.",
        "",
        f"On the {quantization.images} validation images of {quantization.patients} other patients, at the same "
        "decision threshold:",
        "",
        f"- change of AUROC {describe_change(quantization.auroc, '+.4f')}",
        f"- images with another predicted class {describe_change(quantization.decisions, '.1%')}",
        f"- images that changed between certain and uncertain {quantization.certainty:.1%}",
        f"- largest change of a probability {quantization.max_probability_difference:.3f}",
        f"- root mean square change of log odds {quantization.log_odds:.3f}",
        f"- speed-up in processor time on one core, {describe_speed(quantization, ' and ')} "
        f"({quantization.processor}, {quantization.runtime})",
        "",
        "On x64 processors without VNNI instructions, exact kernels are used that are hardly faster than float.",
    ]


def describe_change(change: Figure, form: str) -> str:
    """Format a change with its interval, such as `+0.0010 (-0.0020 to +0.0030)`."""
    if change.low is None or change.high is None:
        return f"{change.value:{form}}"
    return f"{change.value:{form}} ({change.low:{form}} to {change.high:{form}})"


def describe_speed(quantization: Quantization, separator: str) -> str:
    """Format the speed-ups by batch size, such as `1.80 with a batch of 1`."""
    return separator.join(f"{speed.ratio:.2f} with a batch of {speed.batch}" for speed in quantization.speed)
