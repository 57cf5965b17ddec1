"""`pneumo config`."""

from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli.output import JsonOption, print_json, stdout
from pneumo.serving.contracts.errors import InputError

app = typer.Typer(help="Check config files.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Check config files."""


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Ludwig config files.")],
    override: Annotated[list[str] | None, typer.Option("-o", "--override", help="Set a key: trainer.epochs=3.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Check configs against Ludwig's schema and pneumo's rules, in under a second, without loading Ludwig."""
    from pneumo.pipeline import config
    from pneumo.pipeline.release.gate.requirements import FILE, read_gate
    from pneumo.pipeline.sweep import space, sweep_settings

    results: list[dict[str, str | None]] = []
    for file in files:
        try:
            if file.name == FILE.name:  # lies among the configs, and is none
                read_gate(file)
                results.append({"file": str(file), "error": None})
                continue
            document = config.load_config(file, override or ()).document
            if document.data.get("hyperopt") is not None:
                asked = space.read_space(document, file.stem)
                sweep_settings.read_settings(asked)
                asked.check()
            results.append({"file": str(file), "error": None})
        except InputError as error:
            results.append({"file": str(file), "error": str(error)})
    errors = [result["error"] for result in results if result["error"]]
    if as_json:
        print_json(results)
    else:
        for result in results:
            if result["error"] is None:
                stdout().print(f"{result['file']}: good", markup=False)
    if errors:
        raise InputError("\npneumo: ".join(errors))
