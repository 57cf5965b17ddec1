"""`pneumo config`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pneumo.pipeline.cli import options
from pneumo.pipeline.cli.output import print_json, print_lines, print_list, say
from pneumo.serving.contracts.errors import InputError, first_line

if TYPE_CHECKING:
    from pneumo.pipeline.config.problems import Problem
    from pneumo.pipeline.data.manifest import Dataset

app = typer.Typer(help="Check and explain config files.", no_args_is_help=True)


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Ludwig configs, or gate.yaml.")],
    override: options.OverrideOption = None,
    data: Annotated[Path | None, typer.Option(help="Data set that the configs must fit.", show_default="none")] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Check configs and show all errors of each. Does not load Ludwig."""
    from pneumo.pipeline.config.document import format_key_path

    dataset = None
    if data is not None:
        from pneumo.pipeline.data.manifest import read_dataset

        dataset = read_dataset(data)
    verdicts: list[dict[str, object]] = []
    errors: list[str] = []
    for file in files:
        problems, remarks, decisions = _check_file(file, override or [], dataset)
        errors += map(str, problems)
        found = [{"line": each.line, "path": format_key_path(each.path), "message": each.message} for each in problems]
        verdicts.append({"file": str(file), "errors": found, "remarks": remarks, "decisions": decisions})
        if not problems and not as_json:
            print_lines(f"{file}: valid", *(f"  {remark}" for remark in remarks))
            if decisions:
                print_lines("  decisions: " + ", ".join(f"{key} {value}" for key, value in decisions.items()))
    if as_json:
        print_json(verdicts)
    if errors:
        raise InputError("\n".join(errors))


@app.command()
def schema(
    out: Annotated[Path | None, typer.Option(help="File to write; by default standard output.")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="Schema of gate.yaml instead.")] = False,
) -> None:
    """Write the JSON Schema of configs. An editor completes, explains and checks them with it."""
    from pneumo.pipeline.config.json_schema import build_json_schema
    from pneumo.pipeline.release.gate.requirements import build_gate_schema
    from pneumo.serving.contracts.files import write_text

    text = json.dumps(build_gate_schema() if gate else build_json_schema(), indent=1, ensure_ascii=False)
    if out is None:
        print_lines(text)
    else:
        write_text(out, text + "\n")
        say(f"{out}: begin a config with `# yaml-language-server: $schema=` and the path to it")


@app.command()
def explain(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="KEY...", help="Key such as trainer.epochs, or encoder backbone.")
    ] = None,
    as_json: options.JsonOption = False,
) -> None:
    """Explain a key of a config: meaning, type, default, range. Lists what lies under a section."""
    from pneumo.pipeline.config.explanation import explain

    found = explain(words or [])
    if as_json:
        print_json([asdict(each) for each in found])
        return
    for each in found:
        facts = {"type": each.type, "default": each.default, "range": each.range, "choices": ", ".join(each.choices)}
        facts |= {"with": ", ".join(each.kinds), "example": " or ".join(each.examples)}
        print_lines(each.key, f"  {each.description}", *(f"  {name}: {fact}" for name, fact in facts.items() if fact))
        print_list([f"  {sub.name}", sub.default, sub.description] for sub in each.below)


def _check_file(
    file: Path, overrides: list[str], dataset: "Dataset | None"
) -> tuple[list["Problem"], tuple[str, ...], dict[str, object]]:
    """Return the problems of a file, and of a valid config the remarks on it and its resolved section `decisions`."""
    from pneumo.pipeline.config import load_config
    from pneumo.pipeline.config.problems import ConfigError, Problem
    from pneumo.pipeline.sweep.sweep_settings import check_search

    try:
        if file.name == "gate.yaml":  # it lies among the configs
            from pneumo.pipeline.release.gate.requirements import read_gate

            read_gate(file)
            return [], (), {}
        experiment = load_config(file, overrides, [check_search], dataset)
        return [], experiment.remarks, experiment.config["decisions"]
    except ConfigError as error:
        return error.problems, (), {}
    except Exception as error:  # the other files keep their verdicts
        fault = f"{type(error).__name__}: {first_line(error)}"
        return [Problem(str(file), 1, (), f"pneumo failed to check it ({fault}); please report that")], (), {}
