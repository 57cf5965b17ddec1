"""Progress of a sweep."""

from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.sweep.record import Sweep


class SweepReporter(Reporter):
    """Receives the progress of a sweep."""

    def update(self, sweep: Sweep, now: float) -> None:
        """Receive the record after each event, and about once per second. It may change later: do not keep it.

        `now` is in seconds since the sweep began, on the clock of `Round.at`.
        """


SWEEP_SILENT = SweepReporter()
"""Reports nothing."""
