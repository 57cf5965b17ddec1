"""`pneumo init` and `pneumo doctor`: the first hour."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli.output import ConsoleReporter, JsonOption, print_json, say, stdout
from pneumo.serving.contracts.errors import MachineError


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init_command)
    app.command("doctor")(doctor_command)


def init_command(
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    as_json: JsonOption = False,
) -> None:
    """Make a project: configs to edit, a place for images, .gitignore, README, git and DVC where they are installed."""
    from pneumo.pipeline.project.scaffold import create_project

    made = create_project(folder, reporter=ConsoleReporter())
    if as_json:
        print_json(asdict(made))
        return
    say(f"{folder}: {len(made.configs)} configs in ludwig_configs/, images go to raw/")
    say(f"git {'is' if made.git else 'is not'} set up, DVC {'is' if made.dvc else 'is not'}")
    say(f"next: cd {folder} && pneumo doctor, then what README.md says")


def doctor_command(as_json: JsonOption = False) -> None:
    """Say what is installed, what this machine has and how to mend what is missing. Exits 3 where pneumo cannot run."""
    from pneumo.pipeline.project.doctor import examine_environment

    found = examine_environment()
    lacking = [each for each in found if each.needed and each.state == "missing"]
    if as_json:
        print_json({"ready": not lacking, "findings": [asdict(each) for each in found]})
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        styles = {"ok": "green", "missing": "red", "off": "yellow"}
        for area in dict.fromkeys(each.area for each in found):
            table.add_row(Text(area, style="bold"))
            for each in (each for each in found if each.area == area):
                told = f"{each.told}: {each.mend}" if each.mend else each.told
                table.add_row(Text(f"  {each.state}", style=styles[each.state]), each.name, Text(told))
        stdout().print(table)
    if lacking:
        names = ", ".join(each.name for each in lacking)
        raise MachineError(
            f"from images to a served model this is missing: {names}; the lines above say how to mend it"
        )
    say("ready: images can become a served model here")
