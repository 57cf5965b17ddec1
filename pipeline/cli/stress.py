"""`pneumo evaluate RUN --stress`."""

from typing import TYPE_CHECKING

from pneumo.pipeline.cli.output import print_json, progress_bar, say, stdout

if TYPE_CHECKING:
    from pneumo.pipeline.evaluation.results import Estimate
    from pneumo.pipeline.evaluation.stress.stress_test import ShiftResult, StressReport
    from pneumo.pipeline.runs.run import Run


def stress_run(run: "Run", *, images: int | None, as_json: bool) -> None:
    """Run the stress test with progress on at most `images` images, and print what it found."""
    from pneumo.pipeline.evaluation.stress.shifts import list_shifts
    from pneumo.pipeline.evaluation.stress.stress_test import FILE, IMAGES, run_stress_test

    with progress_bar("predicting changed images", total=len(list_shifts()) + 2) as bar:

        def told(title: str) -> None:
            bar.update(bar.task_ids[0], advance=1, description=title)
            if not bar.console.is_terminal:
                say(title)

        report = run_stress_test(run, images=images or IMAGES, progress=told)
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        show(report)
    say(f"wrote {run.folder / FILE}")
    say("Research software, not a medical device.")


def show(report: "StressReport") -> None:
    """Print a table of all changes, and what they come to."""
    from rich.table import Table
    from rich.text import Text

    from pneumo.pipeline.evaluation.report.template import figure, interval
    from pneumo.pipeline.evaluation.results import title

    shown = [name for name in report.unchanged.metrics if name != "auroc"]
    table = Table(title=Text(f"{report.run}: {report.split} of {report.data}"), title_justify="left")
    table.add_column("change", no_wrap=True)
    for name in ("AUROC", "95 % interval", "one class changed", *map(title, shown), "Share flagged"):
        table.add_column(name, justify="right")

    def add(result: "ShiftResult") -> None:
        auroc: Estimate = result.metrics["auroc"]
        table.add_row(
            Text(result.title),
            figure(auroc),
            interval(auroc),
            "-" if result.crossed_auroc is None else f"{result.crossed_auroc:.3f}",
            *(figure(result.metrics[name]) for name in shown),
            "-" if result.flagged is None else f"{result.flagged:.3f}",
        )

    add(report.unchanged)
    table.add_section()
    for result in report.shifts:
        add(result)
    console = stdout()
    console.print(table)
    console.print(f"{report.images:,} images of {report.patients:,} patients, each as it is and changed", markup=False)
    summary = report.summary
    if summary.mean_auroc is not None and summary.worst_auroc is not None:
        console.print(
            f"AUROC under change: mean {summary.mean_auroc:.4f}, worst {summary.worst_auroc:.4f} "
            f"({summary.worst_shift})",
            markup=False,
        )
    if summary.mean_crossed_auroc is not None and summary.worst_crossed_auroc is not None:
        console.print(
            f"AUROC with one class changed: mean {summary.mean_crossed_auroc:.4f}, "
            f"worst {summary.worst_crossed_auroc:.4f} ({summary.worst_crossed_shift})",
            markup=False,
        )
    if summary.mean_balanced_accuracy is not None and summary.worst_balanced_accuracy is not None:
        console.print(
            f"balanced accuracy at the threshold: mean {summary.mean_balanced_accuracy:.4f}, "
            f"worst {summary.worst_balanced_accuracy:.4f}",
            markup=False,
        )
