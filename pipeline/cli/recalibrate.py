"""`pneumo recalibrate`."""

from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import join_words, print_json, print_lines, print_table, say
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.serving.contracts.quantities import format_count


def recalibrate(
    bundle: options.ModelArgument,
    data: Annotated[Path, typer.Option(help="Images of the new place, made by `pneumo data import`.")],
    out: Annotated[Path, typer.Option(help="Folder of the new bundle.")] = Path("recalibrated"),
    policy: Annotated[
        str | None,
        typer.Option(
            help="Policy of the decision threshold, such as 'max balanced accuracy' or 'sensitivity >= 95%'.",
            show_default="that of the bundle",
        ),
    ] = None,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Do not use labels: fit only the outlier limit and drift reference.")
    ] = False,
    models_dir: options.ModelsDirOption = "models",
    as_json: options.JsonOption = False,
) -> None:
    """Fit the decisions of a bundle to images of another place. The network stays as it is.

    Takes 50 to a few hundred labelled images. Writes a new bundle with figures before and after; promote it with
    `pneumo promote`.
    """
    from pneumo.pipeline.data.manifest import read_dataset
    from pneumo.pipeline.decisions.policies import Policy
    from pneumo.pipeline.release.recalibration import recalibrate_bundle
    from pneumo.pipeline.release.recalibration.card import describe_figures

    if policy is not None:
        Policy.parse(policy)
    source = options.open_bundle(bundle, models_dir)
    done = recalibrate_bundle(
        source, read_dataset(data), out=out, policy=policy, labelled=not unlabelled, reporter=Reporter(say)
    )
    if as_json:
        parts = done.info.model_dump(
            mode="json",
            include={"version", "temperature", "thresholds", "policy", "conformal", "outlier", "recalibration"},
        )
        print_json({"bundle": str(done.folder), "id": done.info.id, **parts, "remarks": done.remarks})
        return
    fit = done.info.recalibration
    assert fit is not None
    counts = "".join(f", {count} {name}" for name, count in fit.counts.items())
    images, patients = format_count(fit.images, "image"), format_count(fit.patients, "patient")
    print_lines(f"{done.info.id}: {images} of {patients}{counts}")
    for name, before in source.info.thresholds.items():
        after = done.info.thresholds[name]
        print_lines(f"{done.info.positive_class} at or above {after:.4g} ({done.info.policy}), before {before:.4g}")
    print_table(["metric (95% interval by patient)", "before", "after"], describe_figures(done.info))
    for remark in done.remarks:
        say(f"note: {remark}")
    command = join_words("pneumo", "promote", out if out.parent.name else f"./{out}", "--data", data)
    say(f"wrote {out}; next: {command}")
    say("Research software, not a medical device.")
