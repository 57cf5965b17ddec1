"""`pneumo train`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.output import JsonOption, print_json, say, stdout
from pipeline.cli.progress import TrainingProgress
from serving.errors import InputError

if TYPE_CHECKING:
    from pipeline.runs import Run


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
    data: Annotated[Path, typer.Option("--data", help="Data set made by `pneumo data import`.")] = Path("data"),
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder that gets the run.")] = Path("runs"),
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of weights and shuffling.")] = 42,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this run: folder, name, unique start, or 'latest'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train and evaluate one model. Its run folder holds model, metrics and report; Ctrl-C keeps what is done."""
    from pipeline import config as configs
    from pipeline import training
    from pipeline.data import manifest
    from pipeline.runs import Run
    from pipeline.training.run import TrainingInterruptedError

    if (config is None) == (resume is None):
        raise InputError("pneumo train: give either a CONFIG or --resume RUN")
    if resume is not None and override:
        raise InputError("--resume continues a run as it was; -o needs a new one")
    try:
        with TrainingProgress() as report:
            if resume is not None:
                run = training.resume(Run.open(resume, root=runs_dir), say=say, report=report)
            else:
                assert config is not None
                experiment = configs.load(config, override or ())
                run = training.train(
                    experiment,
                    manifest.read(data),
                    root=runs_dir,
                    seed=seed,
                    command=["pneumo", *sys.argv[1:]],
                    say=say,
                    report=report,
                )
    except TrainingInterruptedError as interrupted:
        kept = f"{interrupted.rounds} evaluation rounds kept; " if interrupted.rounds else ""
        say(f"interrupted; {kept}continue with: pneumo train --resume {interrupted.run.folder}")
        raise typer.Exit(130) from None
    show(run, as_json)


def show(run: "Run", as_json: bool) -> None:
    """Print what a training gave."""
    metrics = run.load_metrics()
    if as_json:
        print_json({"run": run.name, "folder": str(run.folder), "metrics": metrics["splits"]})
        return
    console = stdout()
    console.print(f"[bold]{run.name}[/bold]")
    for split in ("validation", "test"):
        estimates = metrics["splits"].get(split, {}).get("metrics", {})
        parts = [
            f"{name} {estimates[name]['value']:.3f}"
            for name in ("auroc", "accuracy", "sensitivity", "specificity")
            if estimates.get(name, {}).get("value") is not None
        ]
        if parts:
            console.print(f"  {split:<11}{'   '.join(parts)}")
    console.print(f"  report     {run.report}")
    console.print(f"next: pneumo promote {run.folder}")
