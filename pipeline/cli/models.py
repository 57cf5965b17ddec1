"""`pneumo export`, `pneumo promote` and `pneumo models`: bundles and their registry."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import format_number, print_json, print_lines, print_list, print_table, say, style_text
from pneumo.pipeline.cli.progress import ConsoleReporter
from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.contracts.setting_types import parse_root

if TYPE_CHECKING:
    from pneumo.pipeline.release.gate import Verdict
    from pneumo.serving.model.registry import Promotion

app = typer.Typer(help="List, show and roll back promoted models.", no_args_is_help=True)

_OUTCOMES = {"good": "as good", "worse": "worse", "undecided": "too few images to tell"}


def export(
    run: options.RunArgument,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the bundle.", show_default="`bundle` or `bundle-int8` in the run's folder"),
    ] = None,
    quantize: Annotated[
        Literal["int8"] | None,
        typer.Option(
            help="Quantize to 8-bit integers, about twice as fast; refused if predictions of validation images change."
        ),
    ] = None,
    runs_dir: options.RunsDirOption = Path("runs"),
    track: options.TrackOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Export a run as a bundle for serving. A parity check compares the ONNX graph with the Ludwig model."""
    from pneumo.pipeline.export.bundle_export import export_run
    from pneumo.pipeline.export.int8 import AcceptanceLimits
    from pneumo.pipeline.runs.run import Run
    from pneumo.pipeline.training.tracking.bundle_artifact import track_bundle
    from pneumo.serving.model.bundle import Bundle

    tracking = options.join_trackers(track)
    source, reporter = Run.open(run, root=runs_dir), ConsoleReporter()
    bundle = Bundle.open(export_run(source, out=out, int8=AcceptanceLimits() if quantize else None, reporter=reporter))
    if tracking:
        track_bundle(bundle, tracking, job="export", folder=source.folder, reporter=reporter)
    if as_json:
        parts = bundle.info.model_dump(mode="json", include={"parity", "quantization"})
        print_json({"bundle": str(bundle.folder), "digest": bundle.digest, **parts})
    else:
        print_lines(f"{bundle.info.id}: {bundle.folder}")


def promote(
    what: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_BUNDLE",
            help="Run, alias, version, or path of a bundle (with a slash); 'best': the winner of --sweep, or the "
            "best of all runs.",
        ),
    ],
    sweep: Annotated[
        str | None, typer.Option(help="With 'best', the sweep: folder, name, unique prefix of a name, or 'latest'.")
    ] = None,
    alias: options.AliasOption = "champion",
    force: Annotated[
        str | None, typer.Option(help="Reason to promote although the gate refuses. It is recorded.")
    ] = None,
    gate: Annotated[
        Path | None, typer.Option(help="Requirements of the gate.", show_default="ludwig_configs/gate.yaml")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set of the challenger.", show_default="that of its run")
    ] = None,
    models_dir: options.ModelsDirOption = "models",
    runs_dir: options.RunsDirOption = Path("runs"),
    sweeps_dir: options.SweepsDirOption = Path("sweeps"),
    track: options.TrackOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Promote a model to an alias if it passes the gate. Exits 1 if it does not.

    The gate measures it against chance and limits, and compares it with the model that the alias points at now.
    """
    from pneumo.pipeline.release.promotion import Places, check_reason, judge_model
    from pneumo.pipeline.runs.run import Run
    from pneumo.pipeline.training.tracking.bundle_artifact import track_bundle
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.remote_registry import format_path

    check_reason(force)
    tracking = options.join_trackers(track)
    reporter = ConsoleReporter()
    root = parse_root(models_dir)
    places = Places(root, runs_dir, sweeps_dir, data)
    candidate = judge_model(what, alias=alias, gate=gate, sweep=sweep, places=places, reporter=reporter)
    verdict = candidate.verdict
    if not as_json:
        _show_verdict(verdict)
    elif not verdict.passed and force is None:
        print_json({"promoted": False, "gate": verdict.model_dump(mode="json")})
    version = candidate.promote(force=force)
    if tracking:
        bundle, parent = Bundle.open(candidate.bundle), candidate.bundle.parent
        folder = parent if Run(parent).config.is_file() else Path()  # of a registry nothing else is written
        track_bundle(bundle, tracking, job="promote", folder=folder, aliases=[alias], reporter=reporter)
    if as_json:
        document = {**version.model_dump(mode="json"), "id": version.id, "alias": alias}
        print_json({**document, "promoted": True, "gate": verdict.model_dump(mode="json")})
        return
    if not verdict.passed:
        say(f"promoted although the gate refused; the recorded reason: {force}")
    say(f"{alias} is now {version.id}, in {format_path(root, version.bundle)}")
    say(f"serve it with `pneumo serve --model {alias}`")


@app.command("list")
def list_(models_dir: options.ModelsDirOption = "models", as_json: options.JsonOption = False) -> None:
    """List promoted versions and their aliases, oldest first."""
    from pneumo.serving.model.registry import read_registry

    registry = read_registry(parse_root(models_dir))
    rows = [(version, registry.list_aliases(version)) for version in registry.versions]
    if as_json:
        print_json([{**each.model_dump(mode="json"), "id": each.id, "aliases": aliases} for each, aliases in rows])
    elif not rows:
        say(f"no model is promoted in {models_dir} yet; `pneumo promote RUN` promotes one")
    else:
        cells = (
            [version.id, ", ".join(aliases), _auroc(version.metrics), f"{version.promoted_at:%Y-%m-%d %H:%M}"]
            for version, aliases in rows
        )
        print_table(["model", "alias", "AUROC", "promoted (UTC)"], cells)


@app.command()
def show(
    model: options.ModelArgument = "champion",
    models_dir: options.ModelsDirOption = "models",
    as_json: options.JsonOption = False,
) -> None:
    """Show a model and its promotions, and verify its checksums."""
    from pneumo.serving.model.registry import read_registry

    bundle = options.open_bundle(model, models_dir)
    info = bundle.info
    promotions = [] if "/" in model else read_registry(parse_root(models_dir)).list_promotions(info.id)
    if as_json:
        document = {**info.model_dump(mode="json"), "digest": bundle.digest, "folder": str(bundle.folder)}
        print_json({**document, "promotions": [each.model_dump(mode="json") for each in promotions]})
        return
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
        "history": "\n".join(map(_describe_promotion, promotions)),
    }
    print_list([name, value] for name, value in rows.items() if value or name != "history")


@app.command()
def rollback(
    alias: options.AliasOption = "champion",
    models_dir: options.ModelsDirOption = "models",
    as_json: options.JsonOption = False,
) -> None:
    """Point an alias at the version before the present one. The gate is not asked, and no version is deleted."""
    from pneumo.pipeline.release import registry
    from pneumo.serving.model.registry import read_registry

    root = parse_root(models_dir)
    before = read_registry(root).aliases.get(alias)
    version = registry.rollback(alias, root=root)
    if as_json:
        print_json({**version.model_dump(mode="json"), "id": version.id, "alias": alias})
    else:
        say(f"{alias} is {version.id} again, first promoted on {version.promoted_at:%Y-%m-%d %H:%M} UTC")
        say(f"{before} stays in the registry: `pneumo promote {before}` asks the gate to let it back")


def _describe_promotion(promotion: "Promotion") -> str:
    start = f"{promotion.at:%Y-%m-%d %H:%M} UTC, {promotion.alias}"
    if promotion.action == "rollback":
        return f"{start}: rolled back from {promotion.before}"
    if promotion.forced is not None:
        refused = "; ".join(promotion.objections)
        return f"{start}: promoted by force, reason: {promotion.forced} (the gate refused: {refused})"
    compared = f", as good as {promotion.before}" if promotion.compared else ""
    return f"{start}: promoted{compared}"


def _show_verdict(verdict: "Verdict") -> None:
    from pneumo.pipeline.evaluation.results import title

    print_list(
        [style_text("ok", "") if check.passed else style_text("no", "red"), check.name, check.told]
        for check in verdict.checks
    )
    print_lines(*(each.sentence for each in verdict.limits))
    if verdict.figures:
        print_lines(
            f"{verdict.model} against the {verdict.alias} on the same images; with {verdict.confidence:.0%} "
            "confidence no metric may be lower by more than is allowed:"
        )
        right = ["difference", "lowest plausible", "allowed"]
        rows = []
        for figure in verdict.figures:
            found = figure.difference
            values = [format_number(value) for value in (found.first, found.second)]
            values += [format_number(value, "+") for value in (found.value, found.low, -figure.margin)]
            rows.append([title(found.metric), *values, _OUTCOMES[figure.outcome]])
        columns = ["", f"{verdict.champion} ({verdict.alias})", verdict.model, *right, ""]
        print_table(columns, rows, right=right)
    for note in verdict.notes:
        say(f"note: {note}")
    if verdict.passed:
        print_lines(f"the gate lets {verdict.model} become {verdict.alias}")
    else:
        reasons = format_count(len(verdict.objections), "reason")
        print_lines(f"the gate refuses {verdict.model} as {verdict.alias}, for {reasons}")


def _auroc(metrics: Mapping[str, Any]) -> str:
    splits = metrics.get("splits", metrics)  # the registry holds a summary of the bundle's metrics
    for split in ("site", "test", "validation"):
        measured = splits.get(split, {})
        estimate = measured.get("metrics", measured).get("auroc", {})
        if estimate.get("value") is not None:
            interval = "" if estimate.get("low") is None else f" ({estimate['low']:.3f} to {estimate['high']:.3f})"
            return f"{estimate['value']:.3f}{interval}, {split}"
    return ""
