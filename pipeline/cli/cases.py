"""`pneumo cases`."""

from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import NOTICE, say
from pneumo.pipeline.cli.progress import ConsoleReporter


def cases(
    context: typer.Context,
    run: options.RunArgument,
    compare: Annotated[
        str | None, typer.Option(help="Second run, shown beside the first.", show_default="none")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the page.", show_default="cases/NAME")] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page to this machine until Ctrl-C; makes any heat map on demand.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve: port; 0 takes a free one.")] = 8010,
    runs_dir: options.RunsDirOption = Path("runs"),
) -> None:
    """Show all predictions with their images on one page. Filter, compare, tag them.

    The folder holds the images of the data set, and opens from a disk. A run without a bundle is exported first.
    """
    if not serve:
        options.refuse_options(context, {"port"}, because="a port needs --serve")
    from pneumo.pipeline.cases.folder import Subject, refuse_foreign, write_cases
    from pneumo.pipeline.cases.predictions import Predictions
    from pneumo.pipeline.cases.server import CaseServer
    from pneumo.pipeline.export.bundle_export import export_run
    from pneumo.pipeline.release.registry import current_bundle
    from pneumo.pipeline.runs.run import Run
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.predictor import Predictor

    reporter, opened = ConsoleReporter(), Run.open(run, root=runs_dir)
    refuse_foreign(target := out or Path("cases") / opened.name)
    first, second = Predictions.read(opened), None
    if compare:
        first.match(second := Predictions.read(Run.open(compare, root=runs_dir)))
        if second.run.folder.resolve() == opened.folder.resolve():
            say(f"note: {opened.name} is compared with itself: nothing differs")
    predictor = Predictor(Bundle.open(current_bundle(opened) or export_run(opened, reporter=reporter)))
    server = CaseServer(target, predictor, port) if serve else None
    is_new = write_cases(Subject(first, predictor, second), target, reporter)
    say(f"{'wrote' if is_new else 'nothing has changed in'} {target / 'index.html'}; the folder holds the images")
    say(NOTICE)
    if server:
        say(f"listens on http://127.0.0.1:{server.server_port} for this machine; Ctrl-C stops it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped")
