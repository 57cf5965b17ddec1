"""`pneumo train`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.output import JsonOption, print_json, say, stderr, stdout
from serving.errors import InputError

if TYPE_CHECKING:
    from pipeline.runs import Run
    from pipeline.training.callback import Step


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
        with progress() as report:
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


class progress:  # noqa: N801  # used like a function
    """Live progress of training: a bar on a terminal, a line an evaluation round elsewhere."""

    def __enter__(self) -> "Callable[[Step], None]":
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        console = stderr()
        columns = (
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total} steps"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metric]}"),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task("training", total=None, epoch=0, metric="", visible=False)
        self.last: float | None = None
        self.epoch = -1
        self.bar.start()
        return self.report

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def report(self, step: "Step") -> None:
        """Show a step."""
        metric = "" if step.validation is None else f"validation {step.metric} {step.validation:.4f}"
        self.bar.update(self.task, completed=step.step, total=step.total, epoch=step.epoch, metric=metric, visible=True)
        if not self.bar.console.is_terminal and step.epoch != self.epoch:
            self.epoch = step.epoch
            say(f"epoch {step.epoch}, step {step.step} of {step.total} {metric}".rstrip())


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
