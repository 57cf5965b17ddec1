"""`pneumo keys`: API keys of the service."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import print_json, print_table, say

app = typer.Typer(help="Add, list and revoke API keys.", no_args_is_help=True)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Client that gets the key; logs show this name.")]
KeysOption = Annotated[Path, typer.Option("--keys", envvar="PNEUMO_KEYS", help="Key file. It holds digests, no keys.")]


@app.command()
def add(
    name: NameArgument,
    expires: Annotated[str | None, typer.Option(metavar="SPAN", help="Lifetime, such as 12h, 90d or 52w.")] = None,
    keys: KeysOption = Path("keys.yaml"),
    as_json: options.JsonOption = False,
) -> None:
    """Add an API key. Prints it once, alone on standard output; a running service accepts it within two seconds."""
    from pneumo.serving.access.api_keys import add_key, parse_lifetime

    key, text = add_key(keys, name, lifetime=parse_lifetime(expires) if expires is not None else None)
    if as_json:
        print_json({**key.model_dump(mode="json", exclude={"sha256"}), "key": text})
        return
    sys.stdout.write(f"{text}\n")
    until = f"until {key.expires:%Y-%m-%d %H:%M} UTC" if key.expires else f"until `pneumo keys revoke {name}`"
    say(f"the key of {name} is valid {until}; it is not stored and cannot be shown again")
    say("send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`")


@app.command("list")
def list_(keys: KeysOption = Path("keys.yaml"), as_json: options.JsonOption = False) -> None:
    """List the API keys, oldest first."""
    from pneumo.serving.access.api_keys import read_keys

    now, listed = datetime.now(UTC), read_keys(keys).keys
    if as_json:
        rows = [{**key.model_dump(mode="json", exclude={"sha256"}), "expired": key.is_expired(now)} for key in listed]
        print_json(rows)
    elif not listed:
        say(f"no key in {keys} yet; `pneumo keys add NAME` adds one")
    else:
        cells = []
        for key in listed:
            expires = f"{key.expires:%Y-%m-%d %H:%M}" if key.expires else "never"
            expired = " (expired)" if key.is_expired(now) else ""
            cells.append([key.name, key.id, f"{key.created:%Y-%m-%d %H:%M}", expires + expired])
        print_table(["name", "id", "created (UTC)", "expires (UTC)"], cells)


@app.command()
def revoke(name: NameArgument, keys: KeysOption = Path("keys.yaml"), as_json: options.JsonOption = False) -> None:
    """Revoke an API key. A running service refuses it within two seconds."""
    from pneumo.serving.access.api_keys import revoke_key

    key = revoke_key(keys, name)
    if as_json:
        print_json(key.model_dump(mode="json", exclude={"sha256"}))
    else:
        say(f"the key of {name} is revoked")
