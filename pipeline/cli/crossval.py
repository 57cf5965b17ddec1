"""`pneumo crossval`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import format_number, print_json, print_lines, print_table, say
from pneumo.pipeline.cli.progress import ConsoleReporter, TrainingProgress
from pneumo.serving.contracts.errors import InputError

if TYPE_CHECKING:
    from pneumo.pipeline.crossval.record import CrossvalFolder


def crossval(
    context: typer.Context,
    config: Annotated[Path | None, typer.Argument(help="Ludwig config, such as ludwig_configs/baseline.yaml.")] = None,
    override: options.OverrideOption = None,
    data: options.DataOption = Path("data"),
    crossvals_dir: options.CrossvalsDirOption = Path("crossvals"),
    folds: Annotated[int, typer.Option(min=2, help="Number of folds; a model is trained for each.")] = 5,
    repeat: Annotated[
        int, typer.Option(min=1, metavar="N", help="Divide into folds and train them N times, each with another seed.")
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, max=2**31 - 1, help="Seed of the folds, of weights and shuffling; +1 each repeat.")
    ] = 42,
    ensemble: Annotated[
        bool,
        typer.Option("--ensemble", help="Join the folds in one bundle, with decisions fitted out of fold."),
    ] = False,
    resume: Annotated[
        str | None, typer.Option("--resume", help=f"Continue this cross-validation: {options.FOLDER_HELP}")
    ] = None,
    track: options.TrackOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Cross-validate a config by patient.

    Every image outside the test split is predicted by a model that was trained without its patient. Folds keep the
    classes' shares. Each is a run; Ctrl-C keeps finished folds.
    """
    from pneumo.pipeline.config import load_config
    from pneumo.pipeline.crossval.cross_validation import Plan, create_crossval, train_folds
    from pneumo.pipeline.crossval.ensemble import check_decisions, export_ensemble
    from pneumo.pipeline.crossval.record import CrossvalFolder
    from pneumo.pipeline.runs.run import Status

    if (config is None) == (resume is None):
        raise InputError("pneumo crossval: give either a CONFIG or --resume CROSSVAL")
    if resume is not None:
        kept = {"resume", "crossvals_dir", "ensemble", "as_json"}
        options.refuse_options(context, context.params.keys() - kept, because="--resume continues it as it was")
        folder = CrossvalFolder.open(resume, root=crossvals_dir, resuming=True)
        if ensemble:
            check_decisions(load_config(folder.config))
    else:
        assert config is not None
        experiment, dataset = options.load_inputs(config, override, data)
        if ensemble:
            check_decisions(experiment)
        plan = Plan(folds, repeat, seed, options.join_trackers(track))
        folder = create_crossval(experiment, dataset, plan, root=crossvals_dir, command=["pneumo", *sys.argv[1:]])
    try:
        if not (ensemble and folder.read().status is Status.DONE):
            with TrainingProgress() as progress:
                train_folds(folder, reporter=progress)
        bundle = export_ensemble(folder, reporter=ConsoleReporter()) if ensemble else None
    except KeyboardInterrupt:
        say(f"interrupted; finished folds are kept; continue with: pneumo crossval --resume {folder.folder}")
        raise typer.Exit(130) from None
    _show(folder, bundle, as_json)


def _show(folder: "CrossvalFolder", bundle: Path | None, as_json: bool) -> None:
    from pneumo.pipeline.evaluation.results import title

    record = folder.read()
    if as_json:
        print_json({"folder": str(folder.folder), "bundle": bundle and str(bundle), **record.model_dump(mode="json")})
        return
    assert record.pooled is not None
    rows = []
    for name, pooled in record.pooled.metrics.items():
        spread = record.spread.get(name)
        cells = [pooled.value, pooled.low, pooled.high]
        cells += [spread.mean, spread.deviation, spread.low, spread.high] if spread else [None] * 4
        rows.append([title(name), *map(format_number, cells)])
    columns = ["metric", "pooled", "95% from", "to", "mean of folds", "deviation", "lowest", "highest"]
    count = f"{record.folds} folds" + (f", {record.repeats} times" if record.repeats > 1 else "")
    print_table(columns, rows, right=columns[1:], title=f"Out-of-fold predictions of {count}")
    print_lines(f"predictions: {folder.predictions}", f"runs of the folds: {folder.runs}")
    if bundle:
        print_lines(f"bundle of the folds: {bundle}", f"next: pneumo promote {bundle.parent}")
