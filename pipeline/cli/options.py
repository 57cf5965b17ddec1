"""Arguments and options that several commands share, and their common checks."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.setting_types import parse_root

if TYPE_CHECKING:
    from pneumo.pipeline.config import Experiment
    from pneumo.pipeline.data.manifest import Dataset
    from pneumo.serving.model.bundle import Bundle

FOLDER_HELP = "folder, name, unique prefix of a name, or 'latest'."
RUN_HELP = f"Run: {FOLDER_HELP}"
REGISTRY_HELP = "Folder of the registry, or an address: gs://BUCKET/FOLDER."
MODEL_HELP = "Alias, version, or path of a bundle (with a slash)."

SplitName = Literal["train", "validation", "test"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
OverrideOption = Annotated[
    list[str] | None, typer.Option("-o", "--override", help="Set a key, such as trainer.epochs=3. May be repeated.")
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        envvar="PNEUMO_TRACK",
        help="Track with wandb, wandb:offline, mlflow, mlflow:URI or tensorboard. May be repeated.",
    ),
]

DataOption = Annotated[Path, typer.Option(help="Data set made by `pneumo data import`.")]

RunArgument = Annotated[str, typer.Argument(help=RUN_HELP)]
ResumeRunOption = Annotated[str | None, typer.Option("--resume", help=f"Continue this run: {FOLDER_HELP}")]
RunsDirOption = Annotated[Path, typer.Option(help="Folder of the runs.")]
ResumeSweepOption = Annotated[str | None, typer.Option("--resume", help=f"Continue this sweep: {FOLDER_HELP}")]
CrossvalsDirOption = Annotated[Path, typer.Option(help="Folder of the cross-validations.")]
SweepsDirOption = Annotated[Path, typer.Option(help="Folder of the sweeps.")]

ModelArgument = Annotated[str, typer.Argument(help=MODEL_HELP)]
ModelOption = Annotated[str, typer.Option(help=MODEL_HELP)]
ModelsDirOption = Annotated[str, typer.Option(envvar="PNEUMO_MODELS_DIR", help=REGISTRY_HELP)]
AliasOption = Annotated[str, typer.Option(help="Alias to point at the model.")]


class PanelCommand(TyperCommand):
    """A command whose plain help lists options under the headings of their panels."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each panel."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if record := parameter.get_help_record(ctx):
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or kind, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def join_trackers(track: list[str] | None) -> str:
    """Return the trackers of --track as one text; raise an `InputError` if there is no such tracker."""
    from pneumo.pipeline.training.tracking.tracker import parse_trackers

    return parse_trackers(track or ())


def load_inputs(config: Path, overrides: list[str] | None, data: Path) -> "tuple[Experiment, Dataset]":
    """Read a data set, and a config with its search space, which must fit it; all errors of the config are in one.

    Raises:
        ConfigError: The config is wrong, even if the data set is missing.
        InputError: The data set is missing or damaged.
    """
    from pneumo.pipeline.config import load_config
    from pneumo.pipeline.data.manifest import read_dataset
    from pneumo.pipeline.sweep.sweep_settings import check_search

    try:
        dataset = read_dataset(data)
    except InputError:
        load_config(config, overrides or (), [check_search])
        raise
    return load_config(config, overrides or (), [check_search], dataset), dataset


def open_bundle(model: str, models_dir: str) -> "Bundle":
    """Open the bundle of an alias, a version or a path, and verify its checksums."""
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.registry import resolve

    return Bundle.open(resolve(model, parse_root(models_dir)))


def refuse_options(context: typer.Context, names: Collection[str], *, because: str) -> None:
    """Raise `InputError` if the command line holds a parameter with one of these Python names."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name == "COMMANDLINE":
            raise InputError(f"{because}; leave out {max(parameter.opts, key=len)}")
