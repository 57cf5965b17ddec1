"""The part of a model card that tells of a recalibration."""

from pneumo.pipeline.evaluation.results import TITLES, title
from pneumo.serving.contracts.figures import format_estimate
from pneumo.serving.model.bundle import BundleInfo, Figure

HEADING = "## Recalibration"


def describe_figures(info: BundleInfo) -> list[list[str]]:
    """Return title, value before and value after of each figure of a recalibration."""
    recalibration = info.recalibration
    assert recalibration is not None
    return [
        [
            title(name) if name.partition(":")[0] in TITLES else "Share called out-of-distribution",
            _format(recalibration.before.get(name)),
            _format(figure),
        ]
        for name, figure in recalibration.after.items()
    ]


def add_recalibration(card: str, info: BundleInfo) -> str:
    """Return a card with a section about the recalibration behind its notice, instead of an earlier one."""
    recalibration = info.recalibration
    assert recalibration is not None
    counts = ", ".join(f"{count} {name}" for name, count in recalibration.counts.items()) or "labels were not used"
    if recalibration.counts:
        threshold = info.thresholds.get("default")
        called = f" It calls {info.positive_class} at {100 * threshold:.4g}% or above." if threshold is not None else ""
        what = (
            f"Temperature {info.temperature:.3f}, policy `{info.policy}`, limits of prediction sets and "
            f"out-of-distribution score and the reference for drift were fitted to them.{called} Decisions are shrunk "
            "towards those of validation. No image was judged by decisions that it took part in."
        )
    else:
        what = "Only the out-of-distribution limit and the reference for drift were fitted to them."
    section = [
        HEADING,
        "",
        f"The network is that of {recalibration.base}, for images like the {recalibration.images} of "
        f"{recalibration.patients} patients in `{recalibration.data}` ({counts}; fingerprint "
        f"`{recalibration.data_fingerprint}`): {info.origin}. {what}",
        "",
        "| metric | before | after |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(cells)} |" for cells in describe_figures(info)),
        "",
        f"The sections below are those of {recalibration.base} on the data it was trained on.",
    ]
    head, found, rest = card.partition("\n## ")
    if found and rest.startswith(HEADING.removeprefix("## ")):
        _, found, rest = rest.partition("\n## ")
    _, newline, body = head.partition("\n")
    first = f"# {info.name} {info.version}"
    return f"{first}{newline or chr(10)}{body.rstrip()}\n\n" + "\n".join(section) + "\n" + (f"{found}{rest}" or "")


def _format(figure: Figure | None) -> str:
    return "-" if figure is None else format_estimate(figure)
