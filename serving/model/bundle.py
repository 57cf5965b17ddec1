"""A bundle: one folder with everything that is needed to serve a model, sealed by checksums.

`bundle.json` holds the SHA-256 of every other file, so its own digest names the whole. Nothing is unpickled.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.files import write_text
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.contracts.population import PHANTOMS, Population, describe_training
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.images.preparation import Preparation
from pneumo.serving.model.graph_check import find_objection

INFO = "bundle.json"
MODEL = "model.onnx"
EMBEDDING_SPACE = "embedding_space.npz"
SCHEMA_VERSION: Literal[4] = 4
"""Schema of the bundles that are written. From 2 on the outlier limit belongs to the largest of three views, not to the
embedding's distance alone; the embedding space of a bundle of 1 tells which score its limit belongs to. From 3 on the
graph may be quantised, from 4 on a bundle may be recalibrated, and each class has a conformal limit of its own."""

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"
"""Pattern of names that are safe as a folder and unambiguous in `name:version`."""

Name = Annotated[str, Field(pattern=_NAME)]
Probability = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _list_limits(given: Any) -> Any:
    return [given] if isinstance(given, int | float) else given


ClassLimits = Annotated[list[Probability], Field(min_length=1), BeforeValidator(_list_limits)]
"""Conformal limits in column order; one for all classes in what an older pneumo wrote, there a number."""


class BundleError(InputError):
    """The folder is not a bundle, or its checksums do not match."""


class Conformal(FrozenModel):
    """Limit of each class, in column order, fitted so that prediction sets hold a share `level` of its images."""

    level: float = Field(gt=0, lt=1)
    limit: ClassLimits


class Outlier(FrozenModel):
    """Outlier limit: images with a higher score are out of distribution; it is a `quantile` of held-out images."""

    limit: float = Field(gt=0, allow_inf_nan=False)
    quantile: Probability


class Parity(FrozenModel):
    """Parity check: agreement of ONNX Runtime with the trained model at export."""

    images: int = Field(ge=0)
    max_probability_difference: float = Field(ge=0)
    tolerance: float = Field(gt=0)


class Figure(FrozenModel):
    """A metric or its change, with a 95% interval over patients if there is one."""

    value: float = Field(allow_inf_nan=False)
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)


class Speed(FrozenModel):
    """Speed-up of a batch of `batch` images on one core, by processor time."""

    batch: int = Field(gt=0)
    ratio: float = Field(gt=0, allow_inf_nan=False)


class Quantization(FrozenModel):
    """Quantisation of a float graph to 8-bit integers, and the changes that it caused.

    Changes are against the float graph, on validation images that took no part in quantising it, with the same
    temperature, threshold and conformal limits.

    Attributes:
        method: Method in words.
        calibration_images: Validation images that chose ranges and the layers left in float.
        images: Validation images that measured the changes, of `patients` patients.
        integer_nodes: Number of convolutions in integers.
        float_nodes: Names of the convolutions left in float.
        auroc: Change of AUROC.
        decisions: Share of images with another predicted class.
        certainty: Share of images that changed between certain and uncertain.
        max_probability_difference: Largest change of a calibrated probability.
        log_odds: Root mean square change of calibrated log odds.
        speed: Speed-up on `processor` with `runtime`.
    """

    method: str
    calibration_images: int = Field(gt=0)
    images: int = Field(gt=0)
    patients: int = Field(gt=0)
    integer_nodes: int = Field(gt=0)
    float_nodes: list[str]
    auroc: Figure
    decisions: Figure
    certainty: Probability
    max_probability_difference: Probability
    log_odds: float = Field(ge=0, allow_inf_nan=False)
    speed: list[Speed]
    processor: str
    runtime: str


class Recalibration(FrozenModel):
    """Fit of a bundle's decisions to images of another place; its network is unchanged.

    Attributes:
        base: `name:version` of the bundle that has the network and its own decisions.
        data: Name of the data set of the place.
        data_fingerprint: Its fingerprint.
        images: Number of its images; of `patients` patients.
        counts: Number of labelled images of each class; empty if labels were not used, so that only the outlier limit
            and the reference for drift were fitted.
        population: Population of that data set; None if it is not stated.
        before: Metrics of the base's decisions on these images.
        after: Metrics of the new decisions, cross-fitted: no image was judged by decisions that it took part in.
    """

    base: str
    data: str
    data_fingerprint: str
    images: int = Field(gt=0)
    patients: int = Field(gt=0)
    counts: dict[str, int] = {}
    population: Population | None = None
    before: dict[str, Figure] = {}
    after: dict[str, Figure] = {}


class BundleInfo(FrozenModel):
    """Content of `bundle.json`.

    Attributes:
        name: Name of the model, such as that of its config.
        version: Version under that name.
        classes: Class names; the index of a class is its column in `logits`.
        positive_class: With two classes the one whose probability is reported; None with more.
        preparation: Preparation of the model's input.
        temperature: Divisor of the logits before the softmax.
        thresholds: Operating points by name; a model with a positive class has and uses `default`.
        policy: Policy that chose the default threshold, in words.
        conformal: Limits of the prediction sets.
        outlier: Limit of the out-of-distribution score.
        metrics: Metrics with intervals, of the float graph.
        data_fingerprint: Fingerprint of the data set that it was trained on.
        population: Population of that data set; None if it is not stated.
        provenance: Run, commit and package versions that it was made from.
        parity: Parity check at export, of the float graph.
        quantization: Quantisation of the graph; None for a float graph.
        recalibration: Fit to another place; None if all decisions come from validation images of the training data.
        files: SHA-256 of every other file, by name.
    """

    schema_version: Literal[1, 2, 3, 4] = SCHEMA_VERSION
    name: Name
    version: Name
    classes: list[Annotated[str, Field(min_length=1)]] = Field(min_length=2)
    positive_class: str | None
    preparation: Preparation
    temperature: float = Field(gt=0, allow_inf_nan=False)
    thresholds: dict[str, Probability]
    policy: str
    conformal: Conformal
    outlier: Outlier
    metrics: dict[str, Any]
    data_fingerprint: str
    population: Population | None = None
    provenance: dict[str, Any]
    parity: Parity
    quantization: Quantization | None = None
    recalibration: Recalibration | None = None
    files: dict[str, Sha256] = {}

    @model_validator(mode="before")
    @classmethod
    def _spread_limit(cls, given: Any) -> Any:
        """Give every class the one conformal limit of an older bundle."""
        match given:
            case {"conformal": {"limit": float() | int() as limit, **others}, "classes": list(classes)}:
                return given | {"conformal": {**others, "limit": [limit] * len(classes)}}
        return given

    @model_validator(mode="after")
    def _check_agreement(self) -> "BundleInfo":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("duplicate class")
        if len(self.conformal.limit) != len(self.classes):
            raise ValueError(f"conformal.limit must hold {len(self.classes)} numbers, one per class")
        if len(self.classes) == 2 and self.positive_class not in self.classes:
            raise ValueError("with two classes positive_class must be one of them")
        if len(self.classes) > 2 and self.positive_class is not None:
            raise ValueError("positive_class is for two classes")
        if self.positive_class is not None and "default" not in self.thresholds:
            raise ValueError("thresholds must hold 'default'")
        for name in self.files:
            if name in ("", ".", "..", INFO) or re.search(r"[/\\:\0]", name):
                raise ValueError(f"files: {name!r} is not the name of a file inside the bundle")
        return self

    @property
    def id(self) -> str:
        """Name and version, `name:version`."""
        return f"{self.name}:{self.version}"

    @property
    def origin(self) -> str:
        """Whose images it was trained on, and whose its decisions were fitted to, as the end of a sentence."""
        trained, fit = describe_training(self.population), self.recalibration
        if fit is None or not fit.counts:
            return trained
        return f"{trained}; decisions fitted to {fit.population.describe() if fit.population else 'another place'}"

    @property
    def is_phantom(self) -> bool:
        """Whether it was trained on phantoms, so that its answers mean nothing for patients."""
        return self.population == PHANTOMS

    @property
    def notice(self) -> str:
        """Notice of its answers: the disclaimer, and its origin."""
        return f"{NOTICE}; {self.origin}"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk: its folder, the content of `bundle.json`, and that file's SHA-256, which identifies it all."""

    folder: Path
    info: BundleInfo
    digest: str

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> "Bundle":
        """Read a bundle and, unless `verify` is false, check its checksums and its graph.

        Raises:
            BundleError: No bundle, an unknown schema version, a missing or unknown file, a checksum that differs, or a
                graph that is more than data.
        """
        path = folder / INFO
        try:
            content = path.read_bytes()
        except OSError:
            raise BundleError(f"{folder}: no bundle ({INFO} is missing); `pneumo export RUN` makes one") from None
        bundle = cls(folder=folder, info=_parse(path, content), digest=hashlib.sha256(content).hexdigest())
        if verify:
            bundle.verify()
        return bundle

    def verify(self) -> None:
        """Check every file's checksum and the graph; raise a `BundleError` for a file missing, unknown, or changed."""
        present, listed = set(_list_files(self.folder)), self.info.files
        for name in sorted({MODEL, EMBEDDING_SPACE} - listed.keys()):
            raise BundleError(f"{self.folder / INFO}: {name} is not listed; export the model again")
        for name in sorted(present - listed.keys()):
            raise BundleError(f"{self.folder / name}: not part of the bundle; remove it or export the model again")
        for name in listed:
            content = self.read(name)
            if name == MODEL and (objection := find_objection(content)):
                raise BundleError(f"{self.folder / name}: refused: {objection}; export the model again")

    def read(self, name: str) -> bytes:
        """Read one file of the bundle; raise a `BundleError` unless its bytes are the sealed ones."""
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError:
            raise BundleError(f"{path}: missing; copy the bundle again or export the model again") from None
        if hashlib.sha256(content).hexdigest() != self.info.files.get(name):
            reason = "changed since the bundle was sealed (SHA-256 differs)"
            raise BundleError(f"{path}: {reason}; copy it again or export the model again")
        return content


def seal_bundle(folder: Path, info: BundleInfo) -> BundleInfo:
    """Write `bundle.json` with the checksums of the files in `folder`, atomically; return the info with the checksums.

    Raises:
        BundleError: The folder holds a folder or a link, or lacks the model or the embedding space.
    """
    files = {name: compute_digest(folder / name) for name in _list_files(folder)}
    for name in (MODEL, EMBEDDING_SPACE):
        if name not in files:
            raise BundleError(f"{folder / name}: missing; every bundle needs it")
    sealed = BundleInfo.model_validate(info.model_dump() | {"files": files})
    write_text(folder / INFO, sealed.model_dump_json(indent=2) + "\n")
    return sealed


def compute_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _list_files(folder: Path) -> list[str]:
    """List the files of a bundle, apart from `bundle.json` and what an aborted write of it left."""
    names = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path}: a bundle holds plain files only, no folder and no link; remove it")
        if path.name != INFO and not path.name.startswith(f".{INFO}."):
            names.append(path.name)
    return names


def _parse(path: Path, content: bytes) -> BundleInfo:
    try:
        return BundleInfo.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",):
            version = first["input"]
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            fix = "made by a newer pneumo; update this one" if newer else "export the model again"
            raise BundleError(f"{path}: schema version {version!r}, this pneumo reads 1 to 4: {fix}") from None
        raise BundleError(f"{path}: {first_problem(error)}; export the model again") from None
