"""`pneumo predict`: many images, offline."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from pneumo.pipeline.cli.models import ModelsDirOption
from pneumo.pipeline.cli.output import progress_bar, say
from pneumo.serving.contracts.errors import CheckFailedError, InputError

if TYPE_CHECKING:
    from pneumo.serving.inference.offline import FileResult
    from pneumo.serving.model.bundle import BundleInfo

COLUMNS = (
    "file",
    "label",
    "probability",
    "threshold",
    "certainty",
    "in_distribution",
    "outlier_score",
    "elapsed_ms",
    "error",
)


class Format(StrEnum):
    """How predictions are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("predict")(predict_command)


def predict_command(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Image files and folders of them.")],
    model: Annotated[str, typer.Option(help="Alias, version, or bundle folder written with a slash.")] = "champion",
    models_dir: ModelsDirOption = "models",
    output: Annotated[
        Format | None, typer.Option("--format", help="How to write.", show_default="by --out's name, else table")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write to this file.", show_default="standard output")] = None,
) -> None:
    """Predict images with the service's own code. Exits 1 where some cannot be read; the others are predicted."""
    from pneumo.serving.contracts.setting_types import parse_root
    from pneumo.serving.inference.offline import SUFFIXES, count_skipped_files, find_images, predict_files
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.predictor import Predictor
    from pneumo.serving.model.registry import resolve

    chosen = _choose(output, as_json, out)
    bundle = Bundle.open(resolve(model, parse_root(models_dir)))
    files = find_images(paths)
    if passed := count_skipped_files(paths):
        say(f"{passed} files in folders are not images ({', '.join(sorted(SUFFIXES))}) and were passed over")
    results = []
    with progress_bar(f"predicting with {bundle.info.id}", len(files)) as bar:
        for result in predict_files(Predictor(bundle), files):
            results.append(result)
            bar.advance(bar.task_ids[0])
    _write(results, bundle.info, chosen, out)
    failed = sum(result.error is not None for result in results)
    if failed:
        raise CheckFailedError(f"{failed} of {len(results)} images cannot be read; the output says why")


def _choose(output: Format | None, as_json: bool, out: Path | None) -> Format:
    if as_json and output not in (None, Format.JSON):
        raise InputError(f"--json and --format {output}: give one of them")
    if as_json:
        return Format.JSON
    if output is not None:
        return output
    by_name = {".csv": Format.CSV, ".json": Format.JSON}
    return by_name.get(out.suffix.lower(), Format.TABLE) if out else Format.TABLE


def _write(results: Sequence["FileResult"], info: "BundleInfo", chosen: Format, out: Path | None) -> None:
    import io
    import sys

    from pneumo.serving.contracts.files import write_text

    writers = {Format.TABLE: _write_table, Format.CSV: _write_csv, Format.JSON: _write_json}
    if out is None:
        writers[chosen](results, info, sys.stdout)
        return
    text = io.StringIO(newline="")
    writers[chosen](results, info, text)
    try:
        write_text(out, text.getvalue())
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
    say(f"wrote {out}")


def _write_json(results: Sequence["FileResult"], info: "BundleInfo", file: TextIO) -> None:
    import json

    from pneumo.serving.contracts.schemas import NOTICE

    document = {
        "model": {"name": info.name, "version": info.version},
        "predictions": [result.prediction.model_dump(mode="json") for result in results if result.prediction],
        "errors": [{"filename": str(result.path), "error": result.error} for result in results if result.error],
        "notice": NOTICE,
    }
    file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _write_csv(results: Sequence["FileResult"], info: "BundleInfo", file: TextIO) -> None:
    import csv

    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*COLUMNS, *(f"probability_{name}" for name in info.classes)])
    for result in results:
        probabilities = result.prediction.probabilities if result.prediction else {}
        writer.writerow([*_cells(result).values(), *(probabilities.get(name) for name in info.classes)])


def _write_table(results: Sequence["FileResult"], info: "BundleInfo", file: TextIO) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pneumo.serving.contracts.schemas import NOTICE

    shown = info.positive_class or "label"
    table = Table(title=f"{info.id}, {NOTICE}")
    table.add_column("image", overflow="fold")
    for name in ("label", f"p({shown})", "certainty", "known kind"):
        table.add_column(name)
    for result in results:
        row = result.prediction
        if row is None:
            table.add_row(Text(str(result.path)), Text(f"unreadable: {result.error}", style="red"), "", "", "")
        else:
            known = "yes" if row.in_distribution else f"no ({row.outlier_score:.1f})"
            table.add_row(Text(str(result.path)), Text(row.label), f"{row.probability:.3f}", row.certainty, known)
    Console(file=file, highlight=False).print(table)


def _cells(result: "FileResult") -> dict[str, Any]:
    cells = result.prediction.model_dump(include=set(COLUMNS)) if result.prediction else {}
    cells |= {"file": str(result.path), "error": result.error}
    return {name: cells.get(name) for name in COLUMNS}
