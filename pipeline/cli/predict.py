"""`pneumo predict`: offline prediction of image files."""

import io
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import Row, print_table, say, style_text
from pneumo.pipeline.cli.progress import count_bar
from pneumo.serving.contracts.csv_text import format_csv
from pneumo.serving.contracts.errors import CheckFailedError, InputError
from pneumo.serving.contracts.figures import format_probability
from pneumo.serving.contracts.quantities import format_count

if TYPE_CHECKING:
    from pneumo.serving.inference.offline import FileResult
    from pneumo.serving.model.bundle import BundleInfo

Format = Literal["table", "csv", "json"]

COLUMNS = (
    "file",
    "label",
    "probability",
    "threshold",
    "certainty",
    "in_distribution",
    "outlier_score",
    "elapsed_ms",
    "remarks",
    "error",
)


def predict(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Image files and folders of them.")],
    model: options.ModelOption = "champion",
    models_dir: options.ModelsDirOption = "models",
    output: Annotated[
        Format | None, typer.Option("--format", help="Output format.", show_default="by --out's suffix, else table")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    out: Annotated[Path | None, typer.Option(help="Output file.", show_default="standard output")] = None,
) -> None:
    """Predict image files offline, as the service does. Skips unreadable images and then exits 1."""
    from pneumo.serving.contracts.files import write_text
    from pneumo.serving.inference.offline import SUFFIXES, count_skipped_files, find_images, predict_files
    from pneumo.serving.model.predictor import Predictor

    write = {"table": _write_table, "csv": _write_csv, "json": _write_json}[_choose_format(output, as_json, out)]
    bundle = options.open_bundle(model, models_dir)
    files = find_images(paths)
    if skipped := count_skipped_files(paths):
        kinds = ", ".join(sorted(SUFFIXES))
        say(f"skipped {format_count(skipped, 'file')} in folders: no image of a known kind ({kinds})")
    results = []
    if write is _write_csv:  # the others hold it
        say(bundle.info.notice)
    with count_bar(f"predicting with {bundle.info.id}", len(files)) as bar:
        for result in predict_files(Predictor(bundle), files):
            results.append(result)
            bar.advance()
    if out is None:
        write(results, bundle.info, sys.stdout)
    else:
        text = io.StringIO(newline="")
        write(results, bundle.info, text)
        try:
            write_text(out, text.getvalue())
        except OSError as error:
            raise InputError(f"--out {out}: cannot be written ({error.strerror})") from None
        say(f"wrote {out}")
    if failed := sum(result.error is not None for result in results):
        raise CheckFailedError(f"{failed} of {len(results)} images cannot be read; the output holds the reasons")


def _choose_format(output: Format | None, as_json: bool, out: Path | None) -> Format:
    if as_json and output not in (None, "json"):
        raise InputError(f"--json and --format {output}: give one of them")
    if as_json:
        return "json"
    by_suffix: dict[str, Format] = {".csv": "csv", ".json": "json"}
    return output or by_suffix.get(out.suffix.lower() if out else "", "table")


def _write_json(results: Sequence["FileResult"], info: "BundleInfo", file: TextIO) -> None:
    document = {
        "model": {"name": info.name, "version": info.version},
        "predictions": [result.prediction.model_dump(mode="json") for result in results if result.prediction],
        "errors": [{"filename": str(result.path), "error": result.error} for result in results if result.error],
        "notice": info.notice,
    }
    file.write(json.dumps(document, indent=2, allow_nan=False) + "\n")


def _write_csv(results: Sequence["FileResult"], info: "BundleInfo", file: TextIO) -> None:
    probabilities = {name: f"probability_{name}" for name in info.classes}
    columns = [*COLUMNS, *probabilities.values()]
    rows: list[Iterable[object]] = [columns]
    for result in results:
        cells: dict[str, object] = {"file": str(result.path), "error": result.error}
        if result.prediction:
            cells |= result.prediction.model_dump(include=set(COLUMNS) - cells.keys())
            cells["remarks"] = "; ".join(result.prediction.remarks)
            cells |= {column: result.prediction.probabilities[name] for name, column in probabilities.items()}
        rows.append([cells.get(column) for column in columns])
    file.write(format_csv(rows))


def _write_table(results: Sequence["FileResult"], info: "BundleInfo", file: TextIO) -> None:
    rows: list[Row] = []
    for result in results:
        if row := result.prediction:
            inside = "yes" if row.in_distribution else f"no ({row.outlier_score:.1f})"
            rows.append([str(result.path), row.label, format_probability(row.probability), row.certainty, inside])
            rows += [[f"  remark: {remark}"] for remark in row.remarks]
        else:
            rows.append([str(result.path), style_text(f"unreadable: {result.error}", "red")])
    columns = ["image", "label", f"p({info.positive_class or 'label'})", "certainty", "in distribution"]
    print_table(columns, rows, whole=0, title=f"{info.id}, {info.notice}", file=file)
