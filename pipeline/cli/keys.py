"""`pneumo keys`: who may ask the service."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli.output import JsonOption, print_json, say, stdout

app = typer.Typer(help="API keys of the service.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Who has the key; logs name it.")]
KeysOption = Annotated[
    Path, typer.Option("--keys", envvar="PNEUMO_KEYS", help="The key file: digests, never a key itself.")
]


@app.command("add")
def add_command(
    name: NameArgument,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="SPAN", help="Until when it holds, such as 12h, 90d or 52w.")
    ] = None,
    keys: KeysOption = Path("keys.yaml"),
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is printed once, alone on standard output; a running service knows it within a second or two."""
    from pneumo.serving.access.api_keys import add_key, parse_lifetime

    key, text = add_key(keys, name, lifetime=parse_lifetime(expires) if expires is not None else None)
    if as_json:
        print_json({**key.model_dump(mode="json", exclude={"sha256"}), "key": text})
        return
    sys.stdout.write(f"{text}\n")
    until = f"until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else f"until `pneumo keys revoke {name}`"
    say(f"{name} may ask {until}; the key is not kept and cannot be shown again")
    say("send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`")


@app.command("list")
def list_command(keys: KeysOption = Path("keys.yaml"), as_json: JsonOption = False) -> None:
    """List the keys, oldest first."""
    from datetime import UTC, datetime

    from rich.table import Table

    from pneumo.serving.access.api_keys import read_keys

    now = datetime.now(UTC)
    found = read_keys(keys).keys
    if as_json:
        print_json(
            [{**key.model_dump(mode="json", exclude={"sha256"}), "expired": key.is_expired(now)} for key in found]
        )
        return
    if not found:
        say(f"no key in {keys} yet; `pneumo keys add NAME` makes one")
        return
    table = Table()
    table.add_column("name", no_wrap=True)
    for column in ("id", "made (UTC)", "expires (UTC)"):
        table.add_column(column)
    for key in found:
        expires = f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "never"
        mark = " (expired)" if key.is_expired(now) else ""
        table.add_row(key.name, key.id, f"{key.created:%Y-%m-%d %H:%M}", expires + mark)
    stdout().print(table)


@app.command("revoke")
def revoke_command(name: NameArgument, keys: KeysOption = Path("keys.yaml"), as_json: JsonOption = False) -> None:
    """Forget a key; a running service refuses it within a second or two."""
    from pneumo.serving.access.api_keys import revoke_key

    key = revoke_key(keys, name)
    if as_json:
        print_json(key.model_dump(mode="json", exclude={"sha256"}))
    else:
        say(f"{name} may not ask any more")
