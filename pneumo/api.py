"""The functions of `import pneumo`. Each does the same as the command of its name and returns its result.

Paths may be strings. Folders have the defaults of the commands. Messages go to `write`, such as `print`; without it
they are dropped. Errors that a user can fix are subclasses of `pneumo.serving.contracts.errors.PneumoError`. A heavy
package is imported when a function needs it.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pneumo.pipeline.config import Experiment
    from pneumo.pipeline.data.manifest import Dataset
    from pneumo.pipeline.evaluation import EvaluationReport
    from pneumo.pipeline.runs.run import Run
    from pneumo.pipeline.sweep.record import SweepFolder
    from pneumo.serving.inference.offline import FileResult
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.registry import Version

type Write = Callable[[str], object]


def load_config(config: str | Path, *, overrides: Sequence[str] = ()) -> "Experiment":
    """Read, override and check a config file, without loading Ludwig.

    Args:
        config: A Ludwig config in YAML.
        overrides: Assignments such as `trainer.epochs=3`.

    Raises:
        InputError: The file or a value is wrong; the message names file and line.
    """
    from pneumo.pipeline import config as configs

    return configs.load_config(Path(config), overrides)


def import_dataset(
    source: str | Path,
    out: str | Path = "data",
    *,
    size: int = 224,
    fit: Literal["squash", "pad", "crop"] = "squash",
    decode: Literal["full", "scaled"] = "scaled",
    split: Literal["grouped", "given"] = "grouped",
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    patient_regex: str | None = None,
    groups: str | None = None,
    population: str | Path | None = None,
    layout: str | None = None,
    table: str | Path | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    patient_column: str | None = None,
    split_column: str | None = None,
    rename: Sequence[str] = (),
    force: bool = False,
    workers: int | None = None,
) -> "Dataset":
    """Import images and split them by patient: write prepared images, `manifest.csv` and `dataset.json`.

    Args:
        source: Folder of class folders, `.csv`, MedMNIST `.npz`, or a `.zip` or `.tar` of one.
        out: Folder of the data set.
        size: Side of the prepared square images, in pixels.
        fit: How to fit a rectangle into the square.
        decode: Decode large JPEGs at the needed resolution, or in full.
        split: Make splits by class and patient, or keep the given splits.
        fractions: Shares of train, validation and test.
        seed: Seed of the splits.
        patient_regex: Regular expression over file names; its group is the patient.
        groups: Columns of the table with subgroups, such as `sex,view`.
        population: YAML file that states ages, views and sites, or the name of a public data set.
        layout: Levels of folders from the top, such as `split/class`; found out if None.
        table: Table of images and labels, in the source or beside it.
        image_column: Its column of file names; `image` if None.
        label_column: Its column of classes; `label` if None.
        patient_column: Its column of patients; `patient` if None, `none` ignores it.
        split_column: Its column of splits; `split` if None, `none` ignores it.
        rename: New names of classes, such as `no finding=NORMAL`.
        force: Replace a different data set at `out`.
        workers: Processes; chosen by cores if None.

    Raises:
        InputError: The source cannot be used, or `out` holds something else.
        MachineError: `out` cannot be written.
    """
    from pneumo.pipeline.config.file_model import read_population
    from pneumo.pipeline.data import importer
    from pneumo.pipeline.data.sources import SourceOptions
    from pneumo.pipeline.data.splits import Fractions
    from pneumo.serving.images.types import Decode, Fit

    path = None if table is None else str(table)
    options = SourceOptions(layout, path, image_column, label_column, patient_column, split_column, rename)
    settings = importer.ImportSettings(
        size=size,
        fit=Fit(fit),
        decode=Decode(decode),
        seed=seed,
        split=importer.SplitMethod(split),
        fractions=Fractions(*fractions),
        patient_regex=patient_regex,
        groups=groups,
        population=None if population is None else read_population(population),
        source=options,
    )
    return importer.import_dataset(Path(source), Path(out), settings, force=force, workers=workers)


def train(
    config: "str | Path | Experiment",
    data: "str | Path | Dataset" = "data",
    *,
    overrides: Sequence[str] = (),
    seed: int = 42,
    runs_dir: str | Path = "runs",
    address: str | None = None,
    profile: bool = False,
    tracking: str | Sequence[str] = "",
    write: Write | None = None,
) -> "Run":
    """Train a model, predict every split, measure it, and write the report.

    Args:
        config: A Ludwig config file, or the result of `load_config`.
        data: Data set, or its folder.
        overrides: Assignments to a config file, such as `trainer.epochs=3`.
        seed: Seed of weights and shuffling.
        runs_dir: Folder of the runs.
        address: Ray cluster to join, with `backend: {type: ray}`.
        profile: Trace a few steps into the run's folder.
        tracking: Trackers: `wandb`, `wandb:offline`, `mlflow`, `mlflow:URI`, `tensorboard`.
        write: Called with each message.

    Returns:
        The run, with status `done`: `run.folder` holds model, metrics and report.

    Raises:
        InputError: The config is wrong, does not fit the data set, or an image is damaged.
        TrainingInterruptedError: Ctrl-C; `pneumo.pipeline.training.resume` continues.
        TrainingError: Ludwig failed; `train.log` in the run's folder has the details.
        MachineError: Ludwig is not installed.
    """
    from pneumo.pipeline import training
    from pneumo.pipeline.config import Experiment
    from pneumo.pipeline.runs.reporter import Reporter
    from pneumo.pipeline.training.tracking.tracker import parse_trackers
    from pneumo.serving.contracts.errors import InputError

    if not isinstance(config, Experiment):
        config = load_config(config, overrides=overrides)
    elif overrides:
        raise InputError("overrides: are for a config file; give them to load_config")
    return training.train(
        config,
        _read_dataset(data),
        root=Path(runs_dir),
        seed=seed,
        address=address,
        profile=profile,
        tracking=parse_trackers(tracking),
        command=["pneumo.train"],
        reporter=Reporter(write),
    )


def evaluate(
    run: "str | Path | Run | Bundle" = "latest",
    *,
    data: str | Path | None = None,
    split: Literal["train", "validation", "test"] | None = None,
    policy: str | None = None,
    out: str | Path = "evaluations",
    runs_dir: str | Path = "runs",
    write: Write | None = None,
) -> "EvaluationReport":
    """Evaluate a run on its own data, or a bundle at a site (`data`), and write a report.

    Intervals are by patient. The threshold is fitted on validation, at a site only that of `policy`.

    Args:
        run: A run, its folder, its name or a unique prefix of it, or `latest`; with `data` also a bundle, its folder,
            alias or `name:version`.
        data: Data set of another site; that of the run if None.
        split: Split of the result, and the first in the report; if None test, if there is one, or all of `data`.
        policy: Policy of the decision threshold, such as `sensitivity >= 0.95`: fitted on validation and kept, or with
            `data` fitted to it, cross-fitted, and shown beside.
        out: With `data`, the folder of the report.
        runs_dir: Folder of the runs.
        write: Called with each message.

    Returns:
        Metrics of the split with intervals; `files` are the written files.

    Raises:
        InputError: There is no such run, split or policy, or the data set has other classes.
        CheckFailedError: No threshold reaches the policy's floor.
    """
    from pneumo.pipeline import training
    from pneumo.pipeline.data.manifest import Split
    from pneumo.pipeline.evaluation import evaluate_run
    from pneumo.pipeline.runs.reporter import Reporter
    from pneumo.pipeline.runs.run import Run, Status
    from pneumo.serving.model.bundle import Bundle

    lead, reporter = Split[split.upper()] if split else None, Reporter(write)
    if data is not None:
        from pneumo.pipeline.release.registry import find_bundle
        from pneumo.pipeline.release.site_evaluation import evaluate_bundle

        dataset = _read_dataset(data)
        bundle = Bundle.open(find_bundle(_name(run), runs=Path(runs_dir), reporter=reporter))
        return evaluate_bundle(bundle, dataset, out=Path(out), split=lead, policy=policy)
    found = run if isinstance(run, Run) else Run.open(_name(run), root=Path(runs_dir))
    if not found.predictions.is_file() and found.info().status is Status.DONE:  # a sweep measures its best trials only
        training.complete(found, reporter=reporter)
    return evaluate_run(found, split=lead, policy=policy)


def sweep(
    config: str | Path | None = None,
    data: "str | Path | Dataset" = "data",
    *,
    overrides: Sequence[str] = (),
    auto: bool = False,
    trials: int | None = None,
    time_budget: float | str | None = None,
    concurrency: int | None = None,
    cpus: int | None = None,
    gpus: float | None = None,
    seed: int = 42,
    seeds: int = 1,
    top: int = 3,
    sweeps_dir: str | Path = "sweeps",
    address: str | None = None,
    storage: str | None = None,
    tracking: str | Sequence[str] = "",
    write: Write | None = None,
) -> "SweepFolder":
    """Search hyperparameters with Ray Tune, measure the winner, and write `best.yaml`, `trials.csv` and `sweep.html`.

    Args:
        config: A Ludwig config with a `hyperopt` section; with `auto`, any config or None.
        data: Data set, or its folder; trials are compared on its validation split.
        overrides: Assignments to the config, such as `trainer.epochs=3`.
        auto: Choose a search space for data set, machine and time budget.
        trials: Number of trials; if None the config's, or 10.
        time_budget: Seconds until it stops, or a text such as `30m`.
        concurrency: Trials at once; as many as fit if None.
        cpus: Cores per trial; an equal share if None.
        gpus: GPUs per trial, such as 0.5; if None 1, if there is one.
        seed: Seed of the search and of each trial.
        seeds: Seeds that each of the `top` best trials is trained with; the best mean wins.
        top: Number of best trials to repeat.
        sweeps_dir: Folder of the sweeps.
        address: Ray cluster to join.
        storage: Place of the trials that all machines can reach: a path or an address.
        tracking: Trackers: `wandb`, `wandb:offline`, `mlflow`, `mlflow:URI`, `tensorboard`.
        write: Called with each message.

    Returns:
        The sweep's folder, with status `done`: `folder.best` is the winner's config, `folder.read()` holds all trials.

    Raises:
        InputError: Config, search space or data are wrong; nothing was started.
        MachineError: There is no Ray cluster, or it is too small.
        SweepInterruptedError: Ctrl-C; `pneumo.pipeline.sweep.search.resume_sweep` continues.
        SweepError: Every trial failed.
    """
    from pneumo.pipeline.sweep import search
    from pneumo.pipeline.sweep.reporter import SweepReporter
    from pneumo.pipeline.sweep.sweep_settings import SweepLimits, parse_seconds
    from pneumo.pipeline.training.tracking.tracker import parse_trackers
    from pneumo.serving.contracts.errors import InputError

    reporter = SweepReporter(write)
    dataset, path = _read_dataset(data), None if config is None else Path(config)
    budget = parse_seconds(time_budget) if isinstance(time_budget, str) else time_budget
    if auto:
        space = search.plan_search(dataset, path, overrides, time_budget=budget, reporter=reporter)
    elif path is not None:
        space = search.read_search(path, overrides)
    else:
        raise InputError("sweep: give a config with a hyperopt section, or auto=True")
    plan = search.Plan(
        limits=SweepLimits(trials, budget, concurrency, cpus, gpus),
        seed=seed,
        seeds=seeds,
        top=top,
        address=address,
        storage=storage,
        tracking=parse_trackers(tracking),
    )
    return search.run_sweep(
        space, dataset, plan=plan, root=Path(sweeps_dir), command=["pneumo.sweep"], reporter=reporter
    )


def export(
    run: "str | Path | Run" = "latest",
    *,
    out: str | Path | None = None,
    quantize: Literal["int8"] | None = None,
    runs_dir: str | Path = "runs",
    write: Write | None = None,
) -> "Bundle":
    """Export a run as a bundle for serving. A parity check compares its ONNX graph with the Ludwig model.

    Args:
        run: A run, its folder, its name or a unique prefix of it, or `latest`.
        out: Folder of the bundle; if None `bundle` or `bundle-int8` in the run's folder.
        quantize: Quantize to 8-bit integers; refused if predictions of validation images change.
        runs_dir: Folder of the runs.
        write: Called with each message.

    Raises:
        InputError: There is no such run, it is not done, or `out` holds something else.
        CheckFailedError: The parity check failed, or the quantized graph is not good enough.
    """
    from pneumo.pipeline.export.bundle_export import export_run
    from pneumo.pipeline.export.int8 import AcceptanceLimits
    from pneumo.pipeline.runs.reporter import Reporter
    from pneumo.serving.model.bundle import Bundle

    limits = None if quantize is None else AcceptanceLimits()
    folder = export_run(
        _open_run(run, runs_dir), out=None if out is None else Path(out), int8=limits, reporter=Reporter(write)
    )
    return Bundle.open(folder)


def promote(
    model: "str | Path | Run | Bundle" = "latest",
    *,
    alias: str = "champion",
    force: str | None = None,
    gate: str | Path | None = None,
    data: str | Path | None = None,
    models_dir: str | Path = "models",
    runs_dir: str | Path = "runs",
    sweeps_dir: str | Path = "sweeps",
    write: Write | None = None,
) -> "Version":
    """Promote a model to an alias if it passes the gate, which compares it with the alias's present model.

    Args:
        model: A run, a bundle, the folder of one, a name as `pneumo promote` takes it, or `best` of all runs.
        alias: Alias to point at the model.
        force: Reason to promote although the gate refuses; it is recorded.
        gate: File with the requirements of the gate; `ludwig_configs/gate.yaml` if None.
        data: Data set of the challenger; that of its run if None.
        models_dir: Folder of the registry, or an address such as `gs://BUCKET/FOLDER`.
        runs_dir: Folder of the runs.
        sweeps_dir: Folder of the sweeps.
        write: Called with each message.

    Returns:
        The registered version.

    Raises:
        InputError: There is no such model, or alias, gate or data set are wrong.
        CheckFailedError: The gate refuses; the message has its reasons.
        MachineError: The registry cannot be read or written.
    """
    from pneumo.pipeline.release.promotion import Places, check_reason, judge_model
    from pneumo.pipeline.runs.reporter import Reporter
    from pneumo.serving.contracts.setting_types import parse_root

    check_reason(force)
    places = Places(parse_root(models_dir), Path(runs_dir), Path(sweeps_dir), None if data is None else Path(data))
    candidate = judge_model(
        _name(model), alias=alias, gate=None if gate is None else Path(gate), places=places, reporter=Reporter(write)
    )
    return candidate.promote(force=force)


def predict(
    paths: str | Path | Iterable[str | Path],
    model: "str | Path | Bundle" = "champion",
    *,
    models_dir: str | Path = "models",
) -> "list[FileResult]":
    """Predict image files offline, as the service does.

    Args:
        paths: Image files, and folders of them.
        model: Alias or version in the registry, a bundle, or the folder of one.
        models_dir: Folder of the registry, or an address such as `gs://BUCKET/FOLDER`.

    Returns:
        One result per file, in order, with `prediction`, or with `error` if the file cannot be read.

    Raises:
        InputError: There is no such model or path, or a folder has no images.
        BundleError: A checksum of the bundle does not match.
    """
    from pneumo.serving.contracts.setting_types import parse_root
    from pneumo.serving.inference.offline import find_images, predict_files
    from pneumo.serving.model.bundle import Bundle
    from pneumo.serving.model.predictor import Predictor
    from pneumo.serving.model.registry import resolve

    given = [paths] if isinstance(paths, str | Path) else paths
    bundle = model if isinstance(model, Bundle) else Bundle.open(resolve(_name(model), parse_root(models_dir)))
    return list(predict_files(Predictor(bundle), find_images([Path(path) for path in given])))


def _read_dataset(data: "str | Path | Dataset") -> "Dataset":
    from pneumo.pipeline.data.manifest import Dataset, read_dataset

    return data if isinstance(data, Dataset) else read_dataset(Path(data))


def _open_run(run: "str | Path | Run", runs_dir: str | Path) -> "Run":
    from pneumo.pipeline.runs.run import Run

    return run if isinstance(run, Run) else Run.open(run, root=Path(runs_dir))


def _name(model: "str | Path | Run | Bundle") -> str:
    """Return a model as the command line names it: a path has a slash, any other word is an alias."""
    if isinstance(model, str):
        return model
    return str((model if isinstance(model, Path) else model.folder).absolute())
