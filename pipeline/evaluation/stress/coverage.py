"""Coverage of prediction sets by class under the changes of a stress test."""

from pneumo.pipeline.evaluation.stress.stress_test import ShiftResult, StressReport
from pneumo.serving.contracts.figures import format_estimate


def rank_by_coverage(report: StressReport) -> list[tuple[str, ShiftResult]]:
    """Return the changes with the class that they leave least covered, the lowest coverage first.

    Changes of a report of an older pneumo, which did not measure coverage, are left out.
    """
    found = []
    for shift in report.shifts:
        values = {name: each.value for name in report.classes if (each := shift.metrics.get(f"coverage:{name}"))}
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            name = min(known, key=known.__getitem__)
            found.append((known[name], name, shift))
    return [(name, shift) for _, name, shift in sorted(found, key=lambda item: item[0])]


def describe_lowest_coverage(report: StressReport) -> str | None:
    """Return a sentence on the change and the class with the lowest coverage; None if it was not measured."""
    ranked = rank_by_coverage(report)
    if not ranked:
        return None
    name, shift = ranked[0]
    lowest = shift.metrics[f"coverage:{name}"]
    return f"The lowest coverage of a class is {format_estimate(lowest)}, of {name} under the change {shift.title}."
