"""`pneumo serve`: the service over HTTP."""

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import say

if TYPE_CHECKING:
    from pneumo.serving.model.bundle import Bundle


def serve(
    model: Annotated[str | None, typer.Option(help=options.MODEL_HELP, show_default="PNEUMO_MODEL or champion")] = None,
    models_dir: Annotated[
        str | None, typer.Option(help=options.REGISTRY_HELP, show_default="PNEUMO_MODELS_DIR or models")
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
        typer.Option(
            "--shadow", help="Send all requests to the alias 'challenger' too; its answers are only measured."
        ),
    ] = None,
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Require no API key. On 127.0.0.1 none is required anyway.")
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(help="Key file of `pneumo keys`.", show_default="PNEUMO_KEYS or keys.yaml")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Rate limit per key, such as 600/minute.", show_default="none")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            help="Database of the prediction log. It holds numbers about each image, never the image.",
            show_default="PNEUMO_LOG_URL or sqlite:///predictions.sqlite3",
        ),
    ] = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Write no prediction log.")] = False,
) -> None:
    """Serve a promoted model over HTTP until Ctrl-C. An environment variable PNEUMO_NAME sets the setting `name`."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # read by NumPy; its threads would compete with the network's
    from pneumo.serving.contracts.settings import LOG_URL, Settings
    from pneumo.serving.process.server import serve
    from pneumo.serving.telemetry import logs

    settings = Settings.from_environment(
        model=model,
        models_dir=models_dir,
        host=host,
        port=port,
        workers=workers,
        challenger=challenger,
        shadow=shadow,
        auth="off" if no_auth else None,
        keys=keys,
        rate=rate,
        log_url=log,
    )
    settings = settings.model_copy(update={"log_url": None if no_log else settings.log_url or LOG_URL})
    logs.configure(settings.log_format)
    serve(settings, partial(_announce, settings.log_url))
    say("stopped")


def _announce(log_url: str | None, bundle: "Bundle", address: str) -> None:
    say(f"{bundle.info.id} listens on {address} (API documentation: {address}/docs); Ctrl-C stops it")
    if log_url:
        from pneumo.serving.predictions.store import LogStore

        say(f"the prediction log, without images, goes to {LogStore(log_url).shown}; --no-log turns it off")
    say("research software, not a medical device")
