"""What a sweep reports while it runs."""

from pneumo.pipeline.runs.reporter import Reporter
from pneumo.pipeline.sweep.record import Sweep


class SweepReporter(Reporter):
    """Receives the progress of a sweep."""

    def update(self, sweep: Sweep, now: float) -> None:
        """Receive the record after each event, and about once a second.

        Args:
            sweep: As it stands. It must be read before this returns, and not kept.
            now: Seconds since the sweep began, on the clock of `Round.at`.
        """


SWEEP_SILENT = SweepReporter()
"""Reports nothing."""
