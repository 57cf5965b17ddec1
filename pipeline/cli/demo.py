"""`pneumo demo`."""

import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli.output import JsonOption, print_json, stdout
from pneumo.pipeline.cli.progress import TrainingProgress


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    folder: Annotated[Path, typer.Option("--folder", help="Where everything goes.")] = Path("demo"),
    config: Annotated[Path, typer.Option("--config", help="What to train.")] = Path("ludwig_configs/smoke.yaml"),
    as_json: JsonOption = False,
) -> None:
    """Run the whole loop on synthetic images. It ends with a prediction over HTTP and a drift report."""
    from pneumo.pipeline.project.demo import run_demo
    from pneumo.pipeline.project.scaffold import find_starter

    with TrainingProgress() as progress:
        done = run_demo(folder, find_starter(config), reporter=progress)
    if as_json:
        print_json(asdict(done) | {"drift": done.drift.model_dump(mode="json")})
        return
    answer, positive = done.prediction["predictions"][0], done.prediction["model"]["positive_class"]
    activate = "" if shutil.which("pneumo") else f"\n  source {os.path.relpath(Path(sys.prefix) / 'bin' / 'activate')}"
    stdout().print(
        f"""
{done.image}
  is called {answer["label"]}: probability of {positive} {answer["probability"]:.3f}, \
threshold {answer["threshold"]:.3f}; {answer["certainty"]}, {"like" if answer["in_distribution"] else "unlike"} \
the training images
  test AUROC {done.metrics["auroc"]:.3f}, sensitivity {done.metrics["sensitivity"]:.3f}, \
specificity {done.metrics["specificity"]:.3f} on synthetic images
  drift of the test images: {done.drift.verdict} ({done.drift.summary})
  steps: {", ".join(f"{name} {value:.0f} s" for name, value in done.seconds.items())}

where everything lies
  data set   {done.data}
  run        {done.run}
  report     {done.run / "report.html"}
  bundle     {done.bundle}
  registry   {done.models / "registry.yaml"}
  drift      {done.drift_report / "report.html"}

try next{activate}
  pneumo serve --models-dir {done.models}
  curl -F file=@{done.image} http://127.0.0.1:8000/v1/predict
  pneumo train ludwig_configs/smoke.yaml --data {done.data} -o trainer.epochs=3
  pneumo data import YOUR_IMAGES --out data && pneumo train ludwig_configs/baseline.yaml

Research software, not a medical device.""",
        markup=False,
        soft_wrap=True,
    )
