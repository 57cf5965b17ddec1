"""`pneumo export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli.output import ConsoleReporter, JsonOption, WandbOption, print_json, stdout


class Precision(StrEnum):
    """What numbers a graph may compute in."""

    INT8 = "int8"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    run: Annotated[str, typer.Argument(help="Run folder, name, unique start of a name, or 'latest'.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to; the run's folder `bundle` or `bundle-int8` by default.")
    ] = None,
    quantize: Annotated[
        Precision | None,
        typer.Option(
            "--quantize",
            help="Compute in 8-bit integers, about twice as fast; refused where answers on validation images change.",
        ),
    ] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")] = Path("runs"),
    wandb: WandbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a run's bundle for serving. It holds an ONNX graph, proven equal to the Ludwig model."""
    from pneumo.pipeline.export import bundle_export as exporting
    from pneumo.pipeline.export.int8 import AcceptanceLimits
    from pneumo.pipeline.runs.run import Run
    from pneumo.pipeline.training.tracking.bundle_artifact import track_bundle
    from pneumo.serving.model.bundle import Bundle

    made_by = Run.open(run, root=runs_dir)
    folder = exporting.export_run(
        made_by, out=out, int8=AcceptanceLimits() if quantize else None, reporter=ConsoleReporter()
    )
    bundle = Bundle.open(folder)
    if wandb:
        track_bundle(bundle, wandb, job="export", folder=made_by.folder, reporter=ConsoleReporter())
    if as_json:
        parts = bundle.info.model_dump(mode="json", include={"parity", "quantization"})
        print_json({"bundle": str(folder), "digest": bundle.digest, **parts})
    else:
        stdout().print(f"{bundle.info.id}: {folder}")
