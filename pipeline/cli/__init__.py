"""The command line: one module a command group, each command a few lines over a function that works without it."""

import sys

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


def main() -> None:
    """Run the command line; a known error becomes one line and an exit code."""
    try:
        app()
    except PneumoError as error:
        stderr().print(f"pneumo: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        message = f"pneumo: {error.name} is not installed; run `pip install 'pneumo[train]'`"
        stderr().print(message, style="red", markup=False, soft_wrap=True)
        sys.exit(MachineError.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        stderr().print(f"pneumo: {place}{error.strerror or error}", style="red", markup=False, soft_wrap=True)
        sys.exit(MachineError.exit_code)
