"""`pneumo sweep`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli.output import JsonOption, WandbOption, print_json, say, stdout
from pneumo.pipeline.runs.reporter import TrackingMode
from pneumo.serving.contracts.errors import InputError

if TYPE_CHECKING:
    from pneumo.pipeline.sweep.record import SweepFolder


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(sweep)


def sweep(
    config: Annotated[
        Path | None, typer.Argument(help="A Ludwig config with a hyperopt section; with --auto, any config or none.")
    ] = None,
    override: Annotated[
        list[str] | None, typer.Option("-o", "--override", help="Set a key: trainer.epochs=3. May be repeated.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data set made by `pneumo data import`.", show_default="data")
    ] = None,
    sweeps_dir: Annotated[Path, typer.Option("--sweeps-dir", help="Folder that gets the sweep.")] = Path("sweeps"),
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="Trials in all.", show_default="the config's, or 10")
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option("--time-budget", help="Stop after this time: 90, 30m, 1.5h.", show_default="none")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Trials at once.", show_default="as many as fit")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", min=1, help="Cores of a trial.", show_default="shared out")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option("--gpus", min=0, help="GPUs of a trial, such as 0.5.", show_default="1 where any")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, max=2**31 - 1, help="Seed of all.", show_default="42")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", min=1, help="Train the --top best with so many seeds; the best mean wins.", show_default="1"
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="With --seeds: how many of the best.", show_default="3")
    ] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="Train the winner again on training and validation images.")
    ] = False,
    auto: Annotated[
        bool, typer.Option("--auto", help="Choose the space from data, machine and --time-budget, and print it.")
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Continue this sweep: folder, name, unique start, or 'latest'.")
    ] = None,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to join: auto, host:port, ray://...")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="Where trials are kept, reached by all machines: a path, gs://bucket/path."),
    ] = None,
    wandb: WandbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search hyperparameters with Ray Tune. Ctrl-C keeps what is done, and --resume goes on."""
    from pneumo.pipeline.sweep.live_display import LiveDisplay
    from pneumo.pipeline.sweep.record import SweepFolder

    if resume is not None and (config is not None or override or data is not None or auto):
        raise InputError("--resume continues a sweep as it was; CONFIG, -o, --data and --auto need a new one")
    fixed: dict[str, object] = {
        "--trials": trials,
        "--time-budget": time_budget,
        "--concurrency": concurrency,
        "--cpus": cpus,
        "--gpus": gpus,
        "--seed": seed,
        "--seeds": seeds,
        "--top": top,
        "--storage": storage,
        "--wandb": wandb,
    }
    stated = [name for name, value in fixed.items() if value is not None]
    if resume is not None and stated:
        raise InputError(f"{stated[0]}: a sweep that is resumed keeps its own; leave it out")
    if resume is None and config is None and not auto:
        raise InputError("pneumo sweep: give a CONFIG with a hyperopt section, --auto, or --resume SWEEP")
    from pneumo.pipeline.sweep import search

    try:
        with LiveDisplay() as display:
            if resume is not None:
                folder = SweepFolder.open(resume, root=sweeps_dir)
                search.resume_sweep(folder, address=address, refit=refit, reporter=display)
            else:
                from pneumo.pipeline.data import manifest
                from pneumo.pipeline.sweep.sweep_settings import SweepLimits, seconds
                from pneumo.pipeline.training import SEED

                dataset = manifest.read_dataset(data or Path("data"))
                budget = None if time_budget is None else seconds(time_budget)
                if auto:
                    document, name = search.plan_search(
                        dataset, config, override or (), time_budget=budget, reporter=display
                    )
                else:
                    assert config is not None
                    document, name = search.read_search(config, override or ())
                folder = search.run_sweep(
                    document,
                    name,
                    dataset,
                    plan=search.Plan(
                        limits=SweepLimits(trials, budget, concurrency, cpus, gpus),
                        seed=SEED if seed is None else seed,
                        seeds=seeds or 1,
                        top=top or 3,
                        refit=refit,
                        address=address,
                        storage=storage,
                        tracking=wandb or TrackingMode.DISABLED,
                    ),
                    root=sweeps_dir,
                    command=["pneumo", *sys.argv[1:]],
                    reporter=display,
                )
    except search.SweepInterruptedError as interrupted:
        say(f"interrupted; what is done is kept; continue with: pneumo sweep --resume {interrupted.folder.folder}")
        raise typer.Exit(130) from None
    _show(folder, as_json)


def _show(folder: "SweepFolder", as_json: bool) -> None:
    from pneumo.pipeline.sweep.report import table

    record = folder.read()
    if as_json:
        print_json({"folder": str(folder.folder), **table.document(record)})
        return
    console = stdout()
    console.print(table.trial_table(record))
    winner = record.trial(record.winner) if record.winner else None
    if winner is not None:
        value = winner.value(record.goal)
        console.print(f"best: {winner.name}, validation {record.metric} {value:.4f}", soft_wrap=True, markup=False)
        console.print(f"  config     {folder.best}", soft_wrap=True, markup=False)
        console.print(f"  report     {folder.report}", soft_wrap=True, markup=False)
        console.print(f"next: pneumo promote best --sweep {folder.folder}", soft_wrap=True, markup=False)
