"""Promotion of a model: find its bundle, judge it by the gate, and point an alias at it."""

from dataclasses import dataclass
from pathlib import Path

from pneumo.pipeline.comparing.run_list import find_best_run
from pneumo.pipeline.release.gate import Verdict, judge_candidate, read_gate
from pneumo.pipeline.release.gate.decide import GateContext
from pneumo.pipeline.release.registry import CHAMPION, check_alias, find_bundle, promote
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.pipeline.runs.run import RUNS, Run
from pneumo.pipeline.sweep.record import SWEEPS, SweepFolder
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.setting_types import Root
from pneumo.serving.model.registry import MODELS, Version

BEST = "best"
"""Stands for the winner of a sweep, or for the best of all runs."""


@dataclass(frozen=True)
class Places:
    """Registry, runs, sweeps, and the candidate's data set, which is that of its run if None."""

    root: Root = MODELS
    runs: Path = RUNS
    sweeps: Path = SWEEPS
    data: Path | None = None


@dataclass(frozen=True)
class Candidate:
    """A bundle with the gate's verdict for an alias; `root` is the registry."""

    bundle: Path
    alias: str
    root: Root
    verdict: Verdict

    def promote(self, *, force: str | None = None) -> Version:
        """Copy the bundle into the registry and point the alias at it; `force` is a reason to overrule the gate.

        Raises:
            CheckFailedError: The gate refuses and there is no reason, or the alias has changed since the verdict.
            MachineError: The registry cannot be written.
        """
        verdict = self.verdict
        if not verdict.passed and force is None:
            raise CheckFailedError(
                f"{verdict.model} is not promoted to {verdict.alias}: {'; '.join(verdict.objections)}. "
                f'Nothing in {self.root} was changed; --force "REASON" promotes it anyway and records the reason'
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
    """Find a model's bundle and judge it by the gate; a run without a current bundle is exported.

    `what` is a run, alias, version, or path of a bundle with a slash; `best` is the winner of `sweep` (folder, name, or
    unique prefix of a name), or of all runs. Without a `gate` its requirements are `ludwig_configs/gate.yaml`.

    Raises:
        InputError: There is no such model, or alias, gate or data set are wrong.
        MachineError: The registry cannot be read.
    """
    check_alias(alias)
    if sweep is not None and what != BEST:
        raise InputError(f"--sweep: goes with 'best', not with {what!r}")
    places = places or Places()
    requirements = read_gate(gate)
    if what == BEST:
        what = str(_find_best(sweep, places, reporter).folder)
    bundle = find_bundle(what, root=places.root, runs=places.runs, reporter=reporter)
    runs = (places.runs, *sorted(places.sweeps.glob("*/runs")))
    context = GateContext(places.root, places.data, runs, reporter=reporter)
    return Candidate(bundle, alias, places.root, judge_candidate(bundle, alias, requirements, context))


def check_reason(force: str | None) -> None:
    """Raise `InputError` if a reason is blank."""
    if force is not None and not force.strip():
        raise InputError('--force: give the reason, such as --force "the champion needs a view that we no longer take"')


def _find_best(sweep: str | None, places: Places, reporter: Reporter) -> Run:
    """Return the winner of a sweep, or the run with the best validation AUROC."""
    if sweep is not None:
        from pneumo.pipeline.sweep.winner import best_run

        return best_run(SweepFolder.open(sweep, root=places.sweeps))
    in_sweeps = (run for path in places.sweeps.glob("*/runs") for run in Run.list_folders(path))
    best = find_best_run([*Run.list_folders(places.runs), *in_sweeps])
    reporter.message(f"best of all runs by validation AUROC: {best.folder}")
    return best
