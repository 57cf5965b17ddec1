"""The command line: one module a command group, each command a few lines over a function that works without it."""

import sys
import traceback
from dataclasses import dataclass
from typing import Annotated, NoReturn

import typer

from pneumo.pipeline.cli import config as config_commands
from pneumo.pipeline.cli import (
    data,
    drift,
    evaluate,
    export,
    keys,
    models,
    predict,
    project,
    runs,
    serve,
    sweep,
    train,
)
from pneumo.pipeline.cli import demo as demo_command
from pneumo.pipeline.cli.output import stderr
from pneumo.serving.contracts.errors import MachineError, PneumoError
from pneumo.serving.contracts.install_hints import missing_module

app = typer.Typer(
    name="pneumo",
    help="From a YAML file to a chest X-ray classifier that is trained, audited, exported and served. "
    "Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich help costs 0.4 s, twice of all the rest of `pneumo --help`
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.add_typer(config_commands.app, name="config")
app.add_typer(runs.app, name="runs")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(drift.app, name="drift")
for module in (project, demo_command, train, sweep, evaluate, export, models, predict, serve):
    module.register(app)


@dataclass
class GlobalOptions:
    """Options that stand before the command."""

    debug: bool = False


@app.callback()
def read_global_options(
    context: typer.Context,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="PNEUMO_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Keep the options that stand before the command, for `main`."""
    context.ensure_object(GlobalOptions).debug = debug


def main() -> None:
    """Run the command line; a known error becomes one line and an exit code."""
    options = GlobalOptions()
    try:
        app(obj=options)
    except PneumoError as error:
        _exit(str(error), error.exit_code, options)
    except ModuleNotFoundError as error:
        _exit(missing_module(error), MachineError.exit_code, options)
    except ImportError as error:
        _exit(f"a package cannot be imported: {' '.join(str(error).split())}", MachineError.exit_code, options)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _exit(f"{place}{error.strerror or error}", MachineError.exit_code, options)


def _exit(message: str, code: int, options: GlobalOptions) -> NoReturn:
    """Print an error in one line, after its traceback if that was asked for, and exit."""
    if options.debug:
        traceback.print_exc()
    stderr().print(f"pneumo: {message}", style="red", markup=False, soft_wrap=True)
    sys.exit(code)
