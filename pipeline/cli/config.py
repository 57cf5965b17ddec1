"""`pneumo config`."""

from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import print_json, print_lines
from pneumo.serving.contracts.errors import InputError

app = typer.Typer(help="Check config files.", no_args_is_help=True)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Ludwig configs, or gate.yaml.")],
    override: options.OverrideOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check configs against Ludwig's schema and pneumo's rules. Does not load Ludwig."""
    results = [{"file": str(file), "error": _find_error(file, override or [])} for file in files]
    if as_json:
        print_json(results)
    else:
        print_lines(*(f"{result['file']}: valid" for result in results if result["error"] is None))
    if errors := [result["error"] for result in results if result["error"]]:
        raise InputError("\npneumo: ".join(errors))


def _find_error(file: Path, overrides: list[str]) -> str | None:
    from pneumo.pipeline.config import load_config
    from pneumo.pipeline.release.gate.requirements import FILE, read_gate
    from pneumo.pipeline.sweep import space, sweep_settings

    try:
        if file.name == FILE.name:  # gate.yaml lies among the configs
            read_gate(file)
            return None
        document = load_config(file, overrides).document
        if document.data.get("hyperopt") is not None:
            searched = space.read_space(document, file.stem)
            sweep_settings.read_settings(searched)
            searched.check()
    except InputError as error:
        return str(error)
    return None
