"""`pneumo train`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import join_words, print_json, print_lines, say
from pneumo.pipeline.cli.progress import TrainingProgress
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.quantities import format_count

if TYPE_CHECKING:
    from pneumo.pipeline.runs.run import Run

_SHOWN = ("auroc", "accuracy", "sensitivity", "specificity")


def train(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="Ludwig config, such as ludwig_configs/baseline.yaml.")] = None,
    override: options.OverrideOption = None,
    data: options.DataOption = Path("data"),
    runs_dir: options.RunsDirOption = Path("runs"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of weights and shuffling.")] = 42,
    resume: options.ResumeRunOption = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, with backend: {type: ray}: auto, host:port, ray://...")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Trace a few steps; writes a trace and a table into the run folder.")
    ] = False,
    track: options.TrackOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Train and evaluate one model. The run folder holds model, metrics and report; Ctrl-C keeps finished epochs."""
    from pneumo.pipeline import training
    from pneumo.pipeline.runs.run import Run
    from pneumo.pipeline.training.run import TrainingInterruptedError

    if (config is None) == (resume is None):
        raise InputError("pneumo train: give either a CONFIG or --resume RUN")
    if resume is not None:
        options.refuse_options(context, {"override", "data", "seed"}, because="--resume continues a run as it was")
    tracking = options.join_trackers(track)
    try:
        with TrainingProgress() as progress:
            if resume is not None:
                run = training.resume(
                    Run.open(resume, root=runs_dir, resuming=True),
                    address=address,
                    profile=profile,
                    tracking=tracking,
                    reporter=progress,
                )
            else:
                assert config is not None
                run = training.train(
                    *options.load_inputs(config, override, data),
                    root=runs_dir,
                    seed=seed,
                    address=address,
                    profile=profile,
                    tracking=tracking,
                    command=["pneumo", *sys.argv[1:]],
                    reporter=progress,
                )
    except TrainingInterruptedError as interrupted:
        kept = f"{format_count(interrupted.rounds, 'evaluation round')} kept; " if interrupted.rounds else ""
        command = join_words("pneumo", "train", "--resume", interrupted.run.folder)
        say(f"interrupted; {kept}continue with: {command}")
        raise typer.Exit(130) from None
    _show(run, as_json)
    if profile:
        say((run.folder / "profile" / "summary.txt").read_text(encoding="utf-8"))
        say("seconds: " + ", ".join(f"{name} {seconds:.1f}" for name, seconds in run.info().durations.items()))


def _show(run: "Run", as_json: bool) -> None:
    from pneumo.pipeline.evaluation.report.history import describe_kept_round
    from pneumo.pipeline.evaluation.results import list_doubts, read_metrics

    metrics, kept = read_metrics(run), describe_kept_round(run)
    for doubt in list_doubts(metrics):
        say(f"warning: {doubt}")
    splits = metrics.splits
    if as_json:
        measured = {name: part.model_dump(mode="json") for name, part in splits.items()}
        document = {"run": run.name, "folder": str(run.folder), "remarks": run.info().remarks, "metrics": measured}
        print_json(document | {"kept": kept})
        return
    lines = [run.name, f"  {kept}"] if kept else [run.name]
    for split in ("validation", "test"):
        estimates = splits[split].metrics if split in splits else {}
        values = {name: estimates[name].value for name in _SHOWN if name in estimates}
        parts = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
        if parts:
            lines.append(f"  {split:<11}{'   '.join(parts)}")
    print_lines(*lines, f"  report     {run.report}", f"next: {join_words('pneumo', 'promote', run.folder)}")
