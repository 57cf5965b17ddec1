"""`pneumo serve`: REST over a promoted model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.output import say

if TYPE_CHECKING:
    from serving.bundle import Bundle


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve_command)


def serve_command(
    model: Annotated[
        str | None,
        typer.Option(
            help="Alias, version, or bundle folder written with a slash.", show_default="PNEUMO_MODEL or champion"
        ),
    ] = None,
    models_dir: Annotated[
        Path | None, typer.Option(help="Folder of the registry.", show_default="PNEUMO_MODELS_DIR or models")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.", show_default="PNEUMO_HOST or 127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="PNEUMO_PORT or 8000")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port.", show_default="PNEUMO_WORKERS or 1")
    ] = None,
    challenger: Annotated[
        str | None,
        typer.Option(help="Share of requests that the alias 'challenger' answers, such as 10%.", show_default="none"),
    ] = None,
    shadow: Annotated[
        bool | None,
        typer.Option("--shadow", help="Show all requests to the alias 'challenger', which does not answer."),
    ] = None,
) -> None:
    """Serve a model over HTTP until Ctrl-C. Any setting can be given as PNEUMO_ and its name in capitals."""
    from serving.errors import MachineError
    from serving.settings import Settings

    try:
        from serving import logs
        from serving.server import serve
    except ModuleNotFoundError as error:
        raise MachineError(f"{error.name} is not installed: `pip install 'pneumo[serve]'` brings the service") from None
    settings = Settings.from_environment(
        model=model,
        models_dir=models_dir,
        host=host,
        port=port,
        workers=workers,
        challenger=challenger,
        shadow=shadow,
    )
    logs.configure(settings.log_format)
    serve(settings, _announce)
    say("stopped")


def _announce(bundle: "Bundle", address: str) -> None:
    say(f"{bundle.info.id} listens on {address} (try {address}/docs); Ctrl-C stops it")
    say("research software, not a medical device")
