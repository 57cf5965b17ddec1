"""`pneumo export`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.output import JsonOption, print_json, say, stdout


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(export)


def export(
    run: Annotated[str, typer.Argument(help="Run folder, name, unique start of a name, or 'latest'.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where to; the run's folder `bundle` by default.")] = None,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of the runs.")] = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Write a run's bundle for serving. It holds an ONNX graph, proven equal to the Ludwig model."""
    from pipeline import export as exporting
    from pipeline.runs import Run
    from serving.bundle import Bundle

    folder = exporting.export(Run.open(run, root=runs_dir), out=out, say=say)
    bundle = Bundle.open(folder)
    if as_json:
        print_json({"bundle": str(folder), "digest": bundle.digest, "parity": bundle.info.parity.model_dump()})
    else:
        stdout().print(f"{bundle.info.id}: {folder}")
