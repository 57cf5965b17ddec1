"""`pneumo models` and `pneumo promote`: the registry."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import JsonOption, print_json, say, stdout
from serving.errors import InputError

if TYPE_CHECKING:
    from pipeline.runs import Run
    from serving.models import Registry, Version

app = typer.Typer(help="The registry of promoted models.", no_args_is_help=True)

ModelsDirOption = Annotated[Path, typer.Option("--models-dir", help="Folder of the registry.")]
AliasOption = Annotated[str, typer.Option("--alias", help="What shall mean the model.")]


def register(root: typer.Typer) -> None:
    """Add the commands that stand outside the group."""
    root.command("promote")(promote_command)


def promote_command(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_BUNDLE",
            help="Run, alias, version, or a folder written with a slash; 'best': of a --sweep, or of all runs.",
        ),
    ],
    sweep: Annotated[
        str | None, typer.Option("--sweep", help="With 'best': this sweep's: folder, name, unique start, or 'latest'.")
    ] = None,
    alias: AliasOption = "champion",
    models_dir: ModelsDirOption = Path("models"),
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")] = Path("runs"),
    sweeps_dir: Annotated[Path, typer.Option("--sweeps-dir", help="Folder of the sweeps.")] = Path("sweeps"),
    as_json: JsonOption = False,
) -> None:
    """Promote a run's bundle to an alias. The registry keeps a verified copy of it."""
    from pipeline.registry import check_alias, find_bundle, promote

    check_alias(alias)
    if sweep is not None and what != "best":
        raise InputError(f"--sweep: goes with 'best', not with {what!r}")
    if what == "best":
        what = str(_best(sweep, runs_dir, sweeps_dir).folder)
    version = promote(find_bundle(what, root=models_dir, runs=runs_dir, say=say), alias=alias, root=models_dir)
    if as_json:
        print_json({**version.model_dump(mode="json"), "id": version.id, "alias": alias})
    else:
        say(f"{alias} is now {version.id}, in {models_dir / version.bundle}")
        say(f"serve it with `pneumo serve --model {alias}`")


def _best(sweep: str | None, runs_dir: Path, sweeps_dir: Path) -> "Run":
    """The winner of a sweep, or the run with the best validation AUROC."""
    if sweep is not None:
        from pipeline.sweep.finish import best_run
        from pipeline.sweep.records import SweepFolder

        return best_run(SweepFolder.open(sweep, root=sweeps_dir))
    from pipeline.run_list import best_of
    from pipeline.runs import list_runs

    found = best_of([*list_runs(runs_dir), *(run for path in sweeps_dir.glob("*/runs") for run in list_runs(path))])
    say(f"best of all runs by validation AUROC: {found.folder}")
    return found


@app.command("list")
def list_command(models_dir: ModelsDirOption = Path("models"), as_json: JsonOption = False) -> None:
    """List promoted versions, oldest first, with what means them."""
    from serving.models import read_registry

    registry = read_registry(models_dir)
    if as_json:
        print_json([_document(registry, version) for version in registry.versions])
    elif not registry.versions:
        say(f"no model is promoted in {models_dir} yet; `pneumo promote RUN` does")
    else:
        _print_versions(registry)


@app.command("show")
def show_command(
    model: Annotated[str, typer.Argument(help="Alias, version, or bundle folder written with a slash.")] = "champion",
    models_dir: ModelsDirOption = Path("models"),
    as_json: JsonOption = False,
) -> None:
    """Show one model, after checking that its files are those that were sealed."""
    from serving.bundle import Bundle
    from serving.models import resolve

    bundle = Bundle.open(resolve(model, models_dir))
    if as_json:
        print_json({**bundle.info.model_dump(mode="json"), "digest": bundle.digest, "folder": str(bundle.folder)})
        return
    info = bundle.info
    threshold = info.thresholds.get("default")
    rows = {
        "model": info.id,
        "folder": str(bundle.folder),
        "digest": bundle.digest,
        "classes": ", ".join(info.classes),
        "positive class": info.positive_class or "none",
        "input": "{channels} x {height} x {width}, {fit}".format(**info.preparation.model_dump()),
        "threshold": "none" if threshold is None else f"{threshold:.3f} ({info.policy})",
        "temperature": f"{info.temperature:.3f}",
        "AUROC": _auroc(info.metrics),
        "parity": f"{info.parity.max_probability_difference:.1e} over {info.parity.images} images",
        "run": str(info.provenance.get("run", "unknown")),
    }
    _print_pairs(rows)


@app.command("rollback")
def rollback_command(
    alias: AliasOption = "champion", models_dir: ModelsDirOption = Path("models"), as_json: JsonOption = False
) -> None:
    """Let an alias mean what it meant before."""
    from pipeline.registry import rollback

    version = rollback(alias, root=models_dir)
    if as_json:
        print_json({**version.model_dump(mode="json"), "id": version.id, "alias": alias})
    else:
        say(f"{alias} is {version.id} again")


def _document(registry: "Registry", version: "Version") -> dict[str, Any]:
    return {**version.model_dump(mode="json"), "id": version.id, "aliases": registry.aliases_of(version)}


def _print_versions(registry: "Registry") -> None:
    from rich.table import Table

    table = Table()
    table.add_column(
        "model", no_wrap=True, min_width=max((len(version.id) for version in registry.versions), default=0)
    )
    for column in ("alias", "AUROC", "promoted (UTC)"):
        table.add_column(column)
    for version in registry.versions:
        table.add_row(
            version.id,
            ", ".join(registry.aliases_of(version)),
            _auroc(version.metrics),
            f"{version.promoted_at:%Y-%m-%d %H:%M}",
        )
    stdout().print(table)


def _print_pairs(rows: dict[str, str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text(value, overflow="fold"))
    stdout().print(table)


def _auroc(metrics: dict[str, Any]) -> str:
    splits = metrics.get("splits", metrics)  # the registry holds a summary of what the bundle holds
    for split in ("test", "validation"):
        measured = splits.get(split, {})
        estimate = measured.get("metrics", measured).get("auroc", {})
        if estimate.get("value") is not None:
            interval = "" if estimate.get("low") is None else f" ({estimate['low']:.3f} to {estimate['high']:.3f})"
            return f"{estimate['value']:.3f}{interval}, {split}"
    return ""
