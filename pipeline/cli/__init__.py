"""The command line: one module per command group; each command is a few lines over a function."""

import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer

from pneumo.pipeline.cli import (
    cases,
    config,
    crossval,
    data,
    drift,
    evaluate,
    keys,
    models,
    predict,
    project,
    recalibrate,
    runs,
    serve,
    sweep,
    train,
)
from pneumo.pipeline.cli.output import say, stderr
from pneumo.pipeline.runs.reporter import LONG
from pneumo.serving.contracts.errors import MachineError, PneumoError
from pneumo.serving.contracts.install_hints import missing_module
from pneumo.serving.contracts.quantities import format_duration

app = typer.Typer(
    name="pneumo",
    help="From a YAML file to a chest X-ray classifier that is trained, audited, exported and served. "
    "Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help takes 0.4 s, twice as long as the rest of `pneumo --help`
    context_settings={"help_option_names": ["-h", "--help"]},
)
_COMMANDS: tuple[Callable[..., None], ...] = (
    project.init,
    project.doctor,
    project.demo,
    train.train,
    sweep.sweep,
    crossval.crossval,
    evaluate.evaluate,
    cases.cases,
    models.export,
    models.promote,
    recalibrate.recalibrate,
    predict.predict,
    serve.serve,
)
for command in _COMMANDS:
    app.command()(command)
for group in (data, config, runs, models, keys, drift):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


@dataclass
class GlobalOptions:
    """Options before the command; `timed` tells whether the time that it takes is of interest."""

    debug: bool = False
    timed: bool = False


@app.callback()
def read_global_options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="PNEUMO_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Keep the options before the command for `main`, and warn of misspelt variables."""
    options = context.ensure_object(GlobalOptions)
    options.debug, options.timed = debug, context.invoked_subcommand not in ("serve", "keys")
    if context.invoked_subcommand != "serve" and any(name.startswith("PNEUMO_") for name in os.environ):
        from pneumo.serving.contracts.settings import Settings

        Settings.warn_of_unknown_variables()


def main() -> None:
    """Run the command line; print a known error, a line for each problem, and exit with its code."""
    options, began = GlobalOptions(), time.perf_counter()
    try:
        app(obj=options)
    except SystemExit as end:
        if options.timed and not end.code and (seconds := time.perf_counter() - began) >= LONG:
            say(f"done in {format_duration(seconds)}")
        raise
    except (PneumoError, ImportError, OSError) as error:
        if options.debug:
            traceback.print_exc()
        stderr().print("pneumo: " + _describe_error(error).replace("\n", "\npneumo: "), style="red", soft_wrap=True)
        sys.exit(error.exit_code if isinstance(error, PneumoError) else MachineError.exit_code)


def _describe_error(error: PneumoError | ImportError | OSError) -> str:
    match error:
        case ModuleNotFoundError():
            return missing_module(error)
        case ImportError():
            return f"a package cannot be imported: {' '.join(str(error).split())}"
        case OSError():
            return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"
    return str(error)
