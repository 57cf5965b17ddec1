"""`pneumo sweep`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import join_words, print_json, print_lines, say, stdout
from pneumo.serving.contracts.errors import InputError

if TYPE_CHECKING:
    from pneumo.pipeline.sweep.record import SweepFolder


def sweep(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Argument(help="Ludwig config with a hyperopt section; with --auto, any config or none.")
    ] = None,
    override: options.OverrideOption = None,
    data: options.DataOption = Path("data"),
    sweeps_dir: options.SweepsDirOption = Path("sweeps"),
    trials: Annotated[
        str | None,
        typer.Option(
            metavar="N", help="Trials in all; with --resume, +20 adds 20.", show_default="the config's, or 10"
        ),
    ] = None,
    time_budget: Annotated[
        str | None, typer.Option(help="Stop after this time: 90, 30m, 1.5h.", show_default="none")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Trials at once.", show_default="as many as fit")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="Cores per trial.", show_default="an equal share")] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs per trial, such as 0.5.", show_default="1 if there is one")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the search and its trials.")] = 42,
    seeds: Annotated[
        int, typer.Option(min=1, help="Train each of the --top best with this many seeds; the best mean wins.")
    ] = 1,
    top: Annotated[int, typer.Option(min=1, help="With --seeds: number of best trials to repeat.")] = 3,
    auto: Annotated[
        bool, typer.Option("--auto", help="Choose and print a search space for data set, machine and --time-budget.")
    ] = False,
    resume: options.ResumeSweepOption = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join: auto, host:port, ray://...")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Place of the trials that all machines can reach: a path, gs://bucket/path.")
    ] = None,
    track: options.TrackOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Search hyperparameters with Ray Tune. Ctrl-C keeps finished trials; --resume continues or extends the search."""
    from pneumo.pipeline.sweep.live_display import LiveDisplay
    from pneumo.pipeline.sweep.record import SweepFolder

    if resume is not None:
        kept = {"resume", "trials", "time_budget", "sweeps_dir", "address", "as_json"}
        options.refuse_options(context, context.params.keys() - kept, because="--resume continues a sweep as it was")
    if resume is None and config is None and not auto:
        raise InputError("pneumo sweep: give a CONFIG with a hyperopt section, --auto, or --resume SWEEP")
    from pneumo.pipeline.data import manifest
    from pneumo.pipeline.sweep.sweep_settings import SweepLimits, parse_seconds, parse_trials

    found = None if resume is None else SweepFolder.open(resume, root=sweeps_dir, resuming=True)
    number = None if trials is None else parse_trials(trials, found.read().wanted if found else None)
    budget = None if time_budget is None else parse_seconds(time_budget)
    if config is not None and not auto:
        options.load_inputs(config, override, data)  # before Ray is imported, which takes seconds and memory
    from pneumo.pipeline.sweep import search

    tracking = options.join_trackers(track)
    try:
        with LiveDisplay() as display:
            if found is not None:
                folder = search.resume_sweep(
                    found, trials=number, time_budget=budget, address=address, reporter=display
                )
            else:
                dataset = manifest.read_dataset(data)
                if auto or config is None:
                    space = search.plan_search(dataset, config, override or (), time_budget=budget, reporter=display)
                else:
                    space = search.read_search(config, override or ())
                limits = SweepLimits(number, budget, concurrency, cpus, gpus)
                plan = search.Plan(
                    limits, seed, seeds=seeds, top=top, address=address, storage=storage, tracking=tracking
                )
                command = ["pneumo", *sys.argv[1:]]
                folder = search.run_sweep(space, dataset, plan=plan, root=sweeps_dir, command=command, reporter=display)
    except search.SweepInterruptedError as interrupted:
        again = join_words("pneumo", "sweep", "--resume", interrupted.folder.folder)
        say(f"interrupted; finished trials are kept; continue with: {again}")
        raise typer.Exit(130) from None
    _show(folder, as_json)


def _show(folder: "SweepFolder", as_json: bool) -> None:
    from pneumo.pipeline.sweep.live_display import render_result
    from pneumo.pipeline.sweep.report import table

    record = folder.read()
    if as_json:
        print_json({"folder": str(folder.folder), **table.document(record)})
        return
    stdout().print(render_result(record))
    if (winner := record.trial(record.winner)) and (value := winner.value(record.goal)) is not None:
        print_lines(
            f"best: {winner.name}, {record.metric_name} {value:.3f}",
            f"  config     {folder.best}",
            f"  report     {folder.report}",
            f"next: {join_words('pneumo', 'promote', 'best', '--sweep', folder.folder)}",
        )
