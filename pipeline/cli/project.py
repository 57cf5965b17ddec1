"""`pneumo init`, `pneumo doctor` and `pneumo demo`."""

import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import Row, join_words, print_json, print_lines, print_list, say, style_text
from pneumo.pipeline.cli.progress import TrainingProgress
from pneumo.pipeline.runs.reporter import Reporter
from pneumo.serving.contracts.errors import MachineError
from pneumo.serving.contracts.figures import format_probability


def init(
    folder: Annotated[Path, typer.Argument(help="Folder, new or not; . for this one.")],
    as_json: options.JsonOption = False,
) -> None:
    """Create a project with configs, documentation, git and DVC. Replaces no file and stages none."""
    from pneumo.pipeline.project.scaffold import create_project

    project = create_project(folder, reporter=Reporter(say))
    if as_json:
        print_json(asdict(project))
        return
    say(f"{folder}: {len(project.configs)} configs in ludwig_configs/; put images into raw/")
    if project.kept:
        say(f"there before, and left as they are: {', '.join(project.kept)}")
    enter = "" if folder.resolve() == Path.cwd() else f"{join_words('cd', folder)} && "
    say(f"next: {enter}pneumo doctor, then follow {project.guide}")


def doctor(as_json: options.JsonOption = False) -> None:
    """Check the installation and this machine. Says how to fix what is missing; exits 3 if pneumo cannot run."""
    from pneumo.pipeline.project.doctor import examine_environment

    findings = examine_environment()
    missing = [each.name for each in findings if each.needed and each.state == "missing"]
    if as_json:
        print_json({"ready": not missing, "findings": [each.to_dict() for each in findings]})
    else:
        styles = {"ok": "green", "missing": "red", "off": "yellow"}
        rows: list[Row] = []
        for area in dict.fromkeys(each.area for each in findings):
            rows.append([style_text(area, "bold")])
            for each in (each for each in findings if each.area == area):
                text = f"{each.told}: {each.fix}" if each.fix else each.told
                rows.append([style_text(f"  {each.state}", styles[each.state]), each.name, text])
        print_list(rows)
    if missing:
        raise MachineError(f"not ready to train and serve, missing: {', '.join(missing)}; see above how to fix it")
    say("ready to train and serve a model")


def demo(
    folder: Annotated[Path, typer.Option(help="Folder of all results.")] = Path("demo"),
    config: Annotated[Path, typer.Option(help="Config to train.")] = Path("ludwig_configs/smoke.yaml"),
    as_json: options.JsonOption = False,
) -> None:
    """Run every step once on synthetic images. Ends with a prediction over HTTP and a drift report."""
    from pneumo.pipeline.project.demo import run_demo
    from pneumo.pipeline.project.scaffold import find_starter

    with TrainingProgress() as progress:
        done = run_demo(folder, find_starter(config), reporter=progress)
    if as_json:
        print_json(asdict(done) | {"drift": done.drift.model_dump(mode="json")})
        return
    answer, positive = done.prediction["predictions"][0], done.prediction["model"]["positive_class"]
    activate = "" if shutil.which("pneumo") else f"\n  source {os.path.relpath(Path(sys.prefix) / 'bin' / 'activate')}"
    print_lines(
        f"""
{done.image}
  prediction: {answer["label"]}; probability of {positive} {format_probability(answer["probability"])}, \
threshold {answer["threshold"]:.3f}; {answer["certainty"]}, {"in" if answer["in_distribution"] else "out of"} \
distribution
  test AUROC {done.metrics["auroc"]:.3f}, sensitivity {done.metrics["sensitivity"]:.3f}, \
specificity {done.metrics["specificity"]:.3f} on synthetic images
  drift of the test images: {done.drift.verdict} ({done.drift.summary})
  steps: {", ".join(f"{name} {value:.0f} s" for name, value in done.seconds.items())}

results
  data set   {done.data}
  run        {done.run}
  report     {done.run / "report.html"}
  bundle     {done.bundle}
  registry   {done.models / "registry.yaml"}
  drift      {done.drift_report / "report.html"}

try next{activate}
  {join_words("pneumo", "serve", "--models-dir", done.models)}
  {join_words("curl", "-F", f"file=@{done.image}")} http://127.0.0.1:8000/v1/predict
  {join_words("pneumo", "train", "ludwig_configs/smoke.yaml", "--data", done.data)} -o trainer.epochs=3
  pneumo data import YOUR_IMAGES --out data && pneumo train ludwig_configs/baseline.yaml

Research software, not a medical device."""
    )
