"""A whole promotion: find the bundle, let the gate judge it, and point an alias to it."""

from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.comparing.run_list import find_best_run
from pneumo.pipeline.release.gate import Verdict, judge_candidate, read_gate
from pneumo.pipeline.release.gate.decide import GateContext
from pneumo.pipeline.release.registry import CHAMPION, check_alias, find_bundle, promote
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import RUNS, Run, list_runs
from pneumo.pipeline.sweep.record import SWEEPS, SweepFolder
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.model.registry import MODELS, Version

BEST = "best"
"""Names the winner of a sweep, or the best of all runs, in the place of a run."""


@dataclass(frozen=True)
class Places:
    """Where a promotion looks.

    Attributes:
        root: The registry.
        runs: Folder of the runs.
        sweeps: Folder of the sweeps.
        data: Data set of the candidate; where its run had it if None.
    """

    root: Root = MODELS
    runs: Path = RUNS
    sweeps: Path = SWEEPS
    data: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A bundle that the gate has judged for an alias.

    Attributes:
        bundle: Its folder.
        alias: The alias.
        root: The registry.
        verdict: What the gate says.
    """

    bundle: Path
    alias: str
    root: Root
    verdict: Verdict

    def promote(self, *, force: str | None = None) -> Version:
        """Copy the bundle into the registry and point the alias to it.

        Args:
            force: Reason to promote although the gate refuses; it is recorded.

        Raises:
            CheckFailedError: The gate refuses and there is no reason, or the alias was changed since it looked.
            MachineError: The registry cannot be written.
        """
        verdict = self.verdict
        if not verdict.passed and force is None:
            raise CheckFailedError(
                f"{verdict.model} is not promoted to {verdict.alias}: {'; '.join(verdict.objections)}. "
                f'Nothing in {self.root} was changed; --force "REASON" promotes it all the same and records the reason'
            )
        return promote(self.bundle, alias=self.alias, root=self.root, admission=verdict.admission(force))


def judge_model(
    what: str,
    *,
    alias: str = CHAMPION,
    gate: Path | None = None,
    sweep: str | None = None,
    places: Places | None = None,
    reporter: Reporter = SILENT,
) -> Candidate:
    """Find the bundle that is meant, exporting a run if need be, and let the gate judge it.

    Args:
        what: Run, alias, version, or a folder written with a slash; `best` is the winner of `sweep`, or of all runs.
        alias: Alias to point at the model.
        gate: File with the limits of the gate; `ludwig_configs/gate.yaml` where None.
        sweep: With `best`: name, unique start of a name, or folder of a sweep.
        places: Where registry, runs and sweeps are.
        reporter: Receives progress.

    Raises:
        InputError: There is no such model, or alias, gate or data set are wrong.
        MachineError: The registry cannot be read.
    """
    check_alias(alias)
    if sweep is not None and what != BEST:
        raise InputError(f"--sweep: goes with 'best', not with {what!r}")
    places = places or Places()
    limits = read_gate(gate)
    if what == BEST:
        what = str(_find_best(sweep, places, reporter).folder)
    bundle = find_bundle(what, root=places.root, runs=places.runs, reporter=reporter)
    runs = (places.runs, *sorted(places.sweeps.glob("*/runs")))
    verdict = judge_candidate(bundle, alias, limits, GateContext(places.root, places.data, runs, reporter=reporter))
    return Candidate(bundle, alias, places.root, verdict)


def check_reason(force: str | None) -> None:
    """Refuse a reason without a word in it.

    Raises:
        InputError: There is none.
    """
    if force is not None and not force.strip():
        raise InputError('--force: give the reason, such as --force "the champion takes a view that we no longer do"')


def _find_best(sweep: str | None, places: Places, reporter: Reporter) -> Run:
    """Return the winner of a sweep, or the run with the best validation AUROC."""
    if sweep is not None:
        from pneumo.pipeline.sweep.winner import best_run

        return best_run(SweepFolder.open(sweep, root=places.sweeps))
    in_sweeps = (run for path in places.sweeps.glob("*/runs") for run in list_runs(path))
    found = find_best_run([*list_runs(places.runs), *in_sweeps])
    reporter.message(f"best of all runs by validation AUROC: {found.folder}")
    return found
