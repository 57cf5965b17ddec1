"""`pneumo cases`."""

from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import NOTICE, say
from pneumo.pipeline.cli.progress import ConsoleReporter


def cases(
    context: typer.Context,
    run: Annotated[str, typer.Argument(help=f"Run or cross-validation: {options.FOLDER_HELP}")],
    compare: Annotated[
        str | None,
        typer.Option(help="Second run or cross-validation, shown beside the first.", show_default="none"),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the page.", show_default="cases/NAME")] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Serve the page to this machine until Ctrl-C; makes any heat map on demand.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --serve: port; 0 takes a free one.")] = 8010,
    runs_dir: options.RunsDirOption = Path("runs"),
    crossvals_dir: options.CrossvalsDirOption = Path("crossvals"),
) -> None:
    """Show all predictions with their images on one page. Filter, compare, tag them.

    The folder holds the images of the data set, and opens from a disk. A run without a bundle is exported first. Of a
    cross-validation each image is judged by the network of its fold.
    """
    if not serve:
        options.refuse_options(context, {"port"}, because="a port needs --serve")
    from pneumo.pipeline.cases.folder import Subject, refuse_foreign, write_cases
    from pneumo.pipeline.cases.predictions import Predictions
    from pneumo.pipeline.cases.server import CaseServer
    from pneumo.pipeline.crossval.record import open_predictions
    from pneumo.pipeline.export.bundle_export import export_run
    from pneumo.pipeline.release.registry import current_bundle
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.predictor import Predictor

    reporter, opened = ConsoleReporter(), open_predictions(run, runs=runs_dir, crossvals=crossvals_dir)
    refuse_foreign(target := out or Path("cases") / opened.name)
    first, second = Predictions.read(opened), None
    if compare:
        first.match(second := Predictions.read(open_predictions(compare, runs=runs_dir, crossvals=crossvals_dir)))
        if second.folder.folder.resolve() == opened.folder.resolve():
            say(f"note: {opened.name} is compared with itself: nothing differs")
    bundles = (current_bundle(each) or export_run(each, reporter=reporter) for each in first.networks)
    subject = Subject(first, [Predictor(Bundle.open(bundle)) for bundle in bundles], second)
    server = CaseServer(target, subject.find_predictor, port) if serve else None
    is_new = write_cases(subject, target, reporter)
    say(f"{'wrote' if is_new else 'nothing has changed in'} {target / 'index.html'}; the folder holds the images")
    say(NOTICE)
    if server:
        context.obj.timed = False  # it lasts until a person stops it
        say(f"listens on http://127.0.0.1:{server.server_port} for this machine; Ctrl-C stops it")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped")
