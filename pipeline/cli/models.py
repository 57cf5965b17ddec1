"""`pneumo models` and `pneumo promote`: the registry."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pneumo.pipeline.cli.output import ConsoleReporter, JsonOption, WandbOption, print_json, say, stdout

if TYPE_CHECKING:
    from pneumo.pipeline.release.gate import Verdict
    from pneumo.serving.model.registry import Promotion, Registry, Version

app = typer.Typer(help="The registry of promoted models.", no_args_is_help=True)

ModelsDirOption = Annotated[
    str,
    typer.Option(
        "--models-dir", envvar="PNEUMO_MODELS_DIR", help="Folder of the registry, or an address: gs://BUCKET/FOLDER."
    ),
]
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
    force: Annotated[
        str | None, typer.Option("--force", help="Promote though the gate refuses; the reason, which is recorded.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option("--gate", help="Limits of the gate.", show_default="ludwig_configs/gate.yaml")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Data set of the challenger.", show_default="where its run had it")
    ] = None,
    models_dir: ModelsDirOption = "models",
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")] = Path("runs"),
    sweeps_dir: Annotated[Path, typer.Option("--sweeps-dir", help="Folder of the sweeps.")] = Path("sweeps"),
    wandb: WandbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Promote a run's bundle to an alias, if it is as good as what the alias means now. Exits 1 where it is not."""
    from pneumo.pipeline.release.promotion import Places, check_reason, judge_model
    from pneumo.pipeline.training.tracking.bundle_artifact import track_bundle
    from pneumo.serving.contracts.setting_types import parse_root
    from pneumo.serving.model.bundle import Bundle

    check_reason(force)
    root = parse_root(models_dir)
    candidate = judge_model(
        what,
        alias=alias,
        gate=gate,
        sweep=sweep,
        places=Places(root, runs_dir, sweeps_dir, data),
        reporter=ConsoleReporter(),
    )
    verdict = candidate.verdict
    if not as_json:
        _print_verdict(verdict)
    elif not verdict.passed and force is None:
        print_json({"promoted": False, "gate": verdict.model_dump(mode="json")})
    version = candidate.promote(force=force)
    if wandb:
        bundle = candidate.bundle
        track_bundle(
            Bundle.open(bundle),
            wandb,
            job="promote",
            folder=_beside(bundle),
            aliases=[alias],
            reporter=ConsoleReporter(),
        )
    if as_json:
        document = {**version.model_dump(mode="json"), "id": version.id, "alias": alias}
        print_json({**document, "promoted": True, "gate": verdict.model_dump(mode="json")})
        return
    from pneumo.serving.model.remote_registry import format_path

    if not verdict.passed:
        say(f"promoted against the gate; the reason is recorded: {force}")
    say(f"{alias} is now {version.id}, in {format_path(root, version.bundle)}")
    say(f"serve it with `pneumo serve --model {alias}`")


def _beside(bundle: Path) -> Path:
    """Where a tracker writes: the run's folder where the bundle lies in one, else here; a registry stays as it is."""
    from pneumo.pipeline.runs.run import Run

    return bundle.parent if Run(bundle.parent).config.is_file() else Path()


@app.command("list")
def list_command(models_dir: ModelsDirOption = "models", as_json: JsonOption = False) -> None:
    """List promoted versions, oldest first, with what means them."""
    from pneumo.serving.contracts.setting_types import parse_root
    from pneumo.serving.model.registry import read_registry

    registry = read_registry(parse_root(models_dir))
    if as_json:
        print_json([_document(registry, version) for version in registry.versions])
    elif not registry.versions:
        say(f"no model is promoted in {models_dir} yet; `pneumo promote RUN` does")
    else:
        _print_versions(registry)


@app.command("show")
def show_command(
    model: Annotated[str, typer.Argument(help="Alias, version, or bundle folder written with a slash.")] = "champion",
    models_dir: ModelsDirOption = "models",
    as_json: JsonOption = False,
) -> None:
    """Show one model and how it came to its aliases, after checking that its files are those that were sealed."""
    from pneumo.serving.contracts.setting_types import parse_root
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.registry import read_registry, resolve

    root = parse_root(models_dir)
    bundle = Bundle.open(resolve(model, root))
    promotions = [] if "/" in model else read_registry(root).list_promotions(bundle.info.id)
    if as_json:
        document = {**bundle.info.model_dump(mode="json"), "digest": bundle.digest, "folder": str(bundle.folder)}
        print_json({**document, "promotions": [each.model_dump(mode="json") for each in promotions]})
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
    if promotions:
        rows["history"] = "\n".join(map(_history, promotions))
    _print_pairs(rows)


@app.command("rollback")
def rollback_command(
    alias: AliasOption = "champion", models_dir: ModelsDirOption = "models", as_json: JsonOption = False
) -> None:
    """Let an alias mean what it meant before. The gate is not asked."""
    from pneumo.pipeline.release.registry import rollback
    from pneumo.serving.contracts.setting_types import parse_root

    version = rollback(alias, root=parse_root(models_dir))
    if as_json:
        print_json({**version.model_dump(mode="json"), "id": version.id, "alias": alias})
    else:
        say(f"{alias} is {version.id} again")


def _document(registry: "Registry", version: "Version") -> dict[str, Any]:
    return {**version.model_dump(mode="json"), "id": version.id, "aliases": registry.list_aliases(version)}


def _history(promotion: "Promotion") -> str:
    when = f"{promotion.at:%Y-%m-%d %H:%M} UTC, {promotion.alias}"
    if promotion.action == "rollback":
        return f"{when}: back from {promotion.before}"
    if promotion.forced is not None:
        return f"{when}: forced, because: {promotion.forced} (the gate said: {'; '.join(promotion.objections)})"
    compared = f", as good as {promotion.before}" if promotion.compared else ""
    return f"{when}: promoted{compared}"


def _print_verdict(verdict: "Verdict") -> None:
    from rich.table import Table
    from rich.text import Text

    from pneumo.pipeline.evaluation.results import title

    table = Table(box=None, show_header=False)
    for check in verdict.checks:
        style = "" if check.passed else "red"
        table.add_row(Text("ok" if check.passed else "no", style=style), check.name, Text(check.told, overflow="fold"))
    stdout().print(table)
    if verdict.figures:
        table = Table()
        for column in ("", f"{verdict.champion} ({verdict.alias})", verdict.model):
            table.add_column(column)
        for column in ("difference", f"at least ({verdict.confidence:.0%})", "allowed"):
            table.add_column(column, justify="right")
        table.add_column("")
        for figure in verdict.figures:
            found = figure.difference
            cells = [_number(value) for value in (found.first, found.second)]
            cells += [_number(value, "+") for value in (found.value, found.low, -figure.margin)]
            table.add_row(title(found.metric), *cells, _OUTCOMES[figure.outcome])
        stdout().print(table)
    for note in verdict.notes:
        say(f"note: {note}")


_OUTCOMES = {"good": "as good", "worse": "worse", "undecided": "too few images to tell"}


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.3f}"


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
            ", ".join(registry.list_aliases(version)),
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
