"""`pneumo train`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli.output import JsonOption, WandbOption, print_json, say, stdout
from pneumo.pipeline.cli.progress import TrainingProgress
from pneumo.pipeline.runs.reporter import TrackingMode
from pneumo.serving.contracts.errors import InputError

if TYPE_CHECKING:
    from pneumo.pipeline.runs.run import Run


_SHOWN = ("auroc", "accuracy", "sensitivity", "specificity")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def train(
    config: Annotated[
        Path | None, typer.Argument(help="A Ludwig config, such as ludwig_configs/baseline.yaml.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", help="Set a key: trainer.epochs=3. May be repeated.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Data set made by `pneumo data import`.", show_default="data"),
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder that gets the run.")] = Path("runs"),
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of weights and shuffling.", show_default="42"),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this run: folder, name, unique start, or 'latest'.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Ray cluster to join, with backend: {type: ray}: auto, host:port, ray://..."),
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Write where the time goes into the run folder, with a trace.")
    ] = False,
    wandb: WandbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate one model. Its run folder holds model, metrics and report; Ctrl-C keeps what is done."""
    from pneumo.pipeline import config as configs
    from pneumo.pipeline import training
    from pneumo.pipeline.data import manifest
    from pneumo.pipeline.runs.run import Run
    from pneumo.pipeline.training.run import TrainingInterruptedError

    if (config is None) == (resume is None):
        raise InputError("pneumo train: give either a CONFIG or --resume RUN")
    if resume is not None and (override or data is not None or seed is not None):
        raise InputError("--resume continues a run as it was; -o, --data and --seed need a new one")
    try:
        with TrainingProgress() as progress:
            if resume is not None:
                run = training.resume(
                    Run.open(resume, root=runs_dir),
                    address=address,
                    profile=profile,
                    tracking=wandb or TrackingMode.DISABLED,
                    reporter=progress,
                )
            else:
                assert config is not None
                experiment = configs.load_config(config, override or ())
                run = training.train(
                    experiment,
                    manifest.read_dataset(data or Path("data")),
                    root=runs_dir,
                    seed=training.SEED if seed is None else seed,
                    address=address,
                    profile=profile,
                    tracking=wandb or TrackingMode.DISABLED,
                    command=["pneumo", *sys.argv[1:]],
                    reporter=progress,
                )
    except TrainingInterruptedError as interrupted:
        kept = f"{interrupted.rounds} evaluation rounds kept; " if interrupted.rounds else ""
        say(f"interrupted; {kept}continue with: pneumo train --resume {interrupted.run.folder}")
        raise typer.Exit(130) from None
    show(run, as_json)
    if profile:
        say((run.folder / "profile" / "summary.txt").read_text(encoding="utf-8"))


def show(run: "Run", as_json: bool) -> None:
    """Print what a training gave."""
    from pneumo.pipeline.evaluation import read_metrics
    from pneumo.pipeline.evaluation.results import doubts

    metrics = read_metrics(run)
    for doubt in doubts(metrics):
        say(f"warning: {doubt}")
    splits = metrics.splits
    if as_json:
        measured = {name: part.model_dump(mode="json") for name, part in splits.items()}
        print_json({"run": run.name, "folder": str(run.folder), "metrics": measured})
        return
    console = stdout()
    console.print(f"[bold]{run.name}[/bold]")
    for split in ("validation", "test"):
        estimates = splits[split].metrics if split in splits else {}
        values = {name: estimates[name].value for name in _SHOWN if name in estimates}
        parts = [f"{name} {value:.3f}" for name, value in values.items() if value is not None]
        if parts:
            console.print(f"  {split:<11}{'   '.join(parts)}", soft_wrap=True)
    console.print(f"  report     {run.report}", soft_wrap=True)
    console.print(f"next: pneumo promote {run.folder}", soft_wrap=True)
