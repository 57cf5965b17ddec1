"""`pneumo serve`: REST over a promoted model."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli.output import say

if TYPE_CHECKING:
    from pneumo.serving.model.bundle import Bundle


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
        str | None,
        typer.Option(
            help="Folder of the registry, or an address: gs://BUCKET/FOLDER.",
            show_default="PNEUMO_MODELS_DIR or models",
        ),
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
    no_auth: Annotated[
        bool, typer.Option("--no-auth", help="Let anyone ask who reaches the address; else keys, but on 127.0.0.1.")
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(help="File of `pneumo keys`.", show_default="PNEUMO_KEYS or keys.yaml")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Requests that each key may make, such as 600/minute.", show_default="any")
    ] = None,
    log: Annotated[
        str | None,
        typer.Option(
            help="Database of the prediction log, which holds numbers about each image and never the image.",
            show_default="PNEUMO_LOG_URL or sqlite:///predictions.sqlite3",
        ),
    ] = None,
    no_log: Annotated[bool, typer.Option("--no-log", help="Keep no prediction log.")] = False,
) -> None:
    """Serve a model over HTTP until Ctrl-C. Any setting can be given as PNEUMO_ and its name in capitals."""
    import os

    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # its threads would fight with the network's; read by NumPy
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
    if no_log:
        settings = settings.model_copy(update={"log_url": None})
    elif settings.log_url is None:
        settings = settings.model_copy(update={"log_url": LOG_URL})
    logs.configure(settings.log_format)
    serve(settings, partial(_announce, settings.log_url))
    say("stopped")


def _announce(log_url: str | None, bundle: "Bundle", address: str) -> None:
    say(f"{bundle.info.id} listens on {address} (in a browser, or see {address}/docs); Ctrl-C stops it")
    if log_url:
        from pneumo.serving.predictions.store import LogStore

        say(f"numbers about each image, no images, go to {LogStore(log_url).shown} (--no-log: nowhere)")
    say("research software, not a medical device")
