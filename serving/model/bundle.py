"""A bundle: one folder with everything that is needed to serve a model, sealed by digests.

`bundle.json` holds the SHA-256 of every other file, so its own digest names the whole. Nothing is unpickled.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from pneumo.serving.contracts.errors import InputError, first_problem
from pneumo.serving.contracts.models import FrozenModel
from pneumo.serving.images.preparation import Preparation

INFO = "bundle.json"
MODEL = "model.onnx"
EMBEDDING_SPACE = "embedding_space.npz"
SCHEMA_VERSION: Literal[3] = 3
"""Of bundles that are written. In 2 the outlier limit is of the strangest of three views; a reader of 1 would hold the
embedding's distance alone against it. A bundle of 1 says by its embedding space which score its limit is of. In 3 the
graph may be quantised."""
READABLE = (1, 2, 3)

_NAME = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"
"""Names that are safe as a folder and unambiguous in `name:version`."""

Name = Annotated[str, Field(pattern=_NAME)]
Probability = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BundleError(InputError):
    """The folder is no bundle, or not the bundle that was sealed."""


class Conformal(FrozenModel):
    """Which classes cannot be ruled out: `limit` was chosen so that the true class stays in at rate `level`."""

    level: float = Field(gt=0, lt=1)
    limit: Probability


class Outlier(FrozenModel):
    """Outlier scores above `limit`, the `quantile` of held-out images, are not in distribution."""

    limit: float = Field(gt=0, allow_inf_nan=False)
    quantile: Probability


class Parity(FrozenModel):
    """How closely ONNX Runtime and the trained model agreed when the bundle was made."""

    images: int = Field(ge=0)
    max_probability_difference: float = Field(ge=0)
    tolerance: float = Field(gt=0)


class Change(FrozenModel):
    """What a figure changed by, with a 95 % interval over patients where there is one."""

    value: float = Field(allow_inf_nan=False)
    low: float | None = Field(default=None, allow_inf_nan=False)
    high: float | None = Field(default=None, allow_inf_nan=False)


class Speed(FrozenModel):
    """How many times as fast a batch of `batch` images is on one core, by processor time."""

    batch: int = Field(gt=0)
    ratio: float = Field(gt=0, allow_inf_nan=False)


class Quantization(FrozenModel):
    """How a graph of 8-bit integers was made from the float one, and what that changed.

    Everything is against the float graph on validation images that took no part in making it, with the same
    temperature, threshold and conformal limit.

    Attributes:
        method: In words.
        calibration_images: Validation images that ranges and layers in float were chosen by.
        images: Validation images that it was judged by, of `patients` patients.
        integer_nodes: How many convolutions compute in integers.
        float_nodes: Names of those that were left in float.
        auroc: Change of AUROC.
        decisions: Share of images that are called another class.
        certainty: Share of images that are called certain instead of uncertain, or the other way round.
        max_probability_difference: Largest change of a calibrated probability.
        log_odds: Root mean square change of calibrated log odds.
        speed: How many times as fast it was on `processor` with `runtime`.
    """

    method: str
    calibration_images: int = Field(gt=0)
    images: int = Field(gt=0)
    patients: int = Field(gt=0)
    integer_nodes: int = Field(gt=0)
    float_nodes: list[str]
    auroc: Change
    decisions: Change
    certainty: Probability
    max_probability_difference: Probability
    log_odds: float = Field(ge=0, allow_inf_nan=False)
    speed: list[Speed]
    processor: str
    runtime: str


class BundleInfo(FrozenModel):
    """`bundle.json`.

    Attributes:
        name: Name of the model, such as that of its config.
        version: Version under that name.
        classes: Class names; the index of a class is its column in `logits`.
        positive_class: With two classes the one whose probability is reported; None with more.
        preparation: How images become the model's input.
        temperature: Logits are divided by it before the softmax.
        thresholds: Operating points by name; `default` is used, and there must be one with a positive class.
        policy: How the default threshold was chosen, in words.
        conformal: Limit of the conformal sets.
        outlier: Limit of the outlier score.
        metrics: With intervals, as measured.
        data_fingerprint: Of the data set that it was trained on.
        provenance: Where it came from: run, commit, versions.
        parity: The check at export, of the float graph.
        quantization: How the graph was quantised; None of a float one. `metrics` are those of the float graph.
        files: SHA-256 of every other file, by name.
    """

    schema_version: Literal[1, 2, 3] = SCHEMA_VERSION
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
    provenance: dict[str, Any]
    parity: Parity
    quantization: Quantization | None = None
    files: dict[str, Sha256] = {}

    @model_validator(mode="after")
    def _agree(self) -> "BundleInfo":
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("classes must differ from each other")
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
        """`name:version`."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        folder: Where it lies.
        info: Its `bundle.json`.
        digest: SHA-256 of `bundle.json`, which names the whole bundle.
    """

    folder: Path
    info: BundleInfo
    digest: str

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> "Bundle":
        """Read a bundle and, unless told otherwise, check that its files are those that were sealed.

        Raises:
            BundleError: No bundle, a schema of another version, a missing or unknown file, or a digest that differs.
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
        """Check every file against `bundle.json`.

        Raises:
            BundleError: A file is missing, unknown, or has another digest.
        """
        found = set(_other_files(self.folder))
        for name in sorted({MODEL, EMBEDDING_SPACE} - self.info.files.keys()):
            raise BundleError(f"{self.folder / INFO}: {name} is not listed; export the model again")
        for name in sorted(found - self.info.files.keys()):
            raise BundleError(f"{self.folder / name}: not part of the bundle; remove it or export the model again")
        for name, expected in self.info.files.items():
            if name not in found:
                raise BundleError(f"{self.folder / name}: missing; copy the bundle again or export the model again")
            if compute_digest(self.folder / name) != expected:
                raise BundleError(_changed(self.folder / name))

    def read(self, name: str) -> bytes:
        """Read one file of the bundle, checked again, so that the bytes used are the bytes that were sealed.

        Raises:
            BundleError: It is missing or has another digest.
        """
        path = self.folder / name
        try:
            content = path.read_bytes()
        except OSError:
            raise BundleError(f"{path}: missing; copy the bundle again or export the model again") from None
        if hashlib.sha256(content).hexdigest() != self.info.files.get(name):
            raise BundleError(_changed(path))
        return content


def seal_bundle(folder: Path, info: BundleInfo) -> BundleInfo:
    """Write `bundle.json` over the files in `folder`; last and atomically, so that a bundle with one is complete.

    Returns:
        The info with the digests of all files.

    Raises:
        BundleError: The folder holds a folder or a link, or misses the model or the embedding space.
    """
    files = {name: compute_digest(folder / name) for name in _other_files(folder)}
    for name in (MODEL, EMBEDDING_SPACE):
        if name not in files:
            raise BundleError(f"{folder / name}: missing; a bundle cannot do without")
    sealed = BundleInfo.model_validate(info.model_dump() | {"files": files})
    partial = folder / f".{INFO}.partial"
    partial.write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    partial.replace(folder / INFO)
    return sealed


def compute_digest(path: Path) -> str:
    """Compute the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _other_files(folder: Path) -> list[str]:
    names = []
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or not path.is_file():
            raise BundleError(f"{path}: a bundle holds plain files only, no folder and no link; remove it")
        if path.name not in (INFO, f".{INFO}.partial"):
            names.append(path.name)
    return names


def _parse(path: Path, content: bytes) -> BundleInfo:
    try:
        return BundleInfo.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",):
            version, known = first["input"], f"{', '.join(map(str, READABLE[:-1]))} and {READABLE[-1]}"
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            mend = "made by a newer pneumo; update this one" if newer else "export the model again"
            raise BundleError(f"{path}: schema version {version!r}, this pneumo reads {known}: {mend}") from None
        raise BundleError(f"{path}: {first_problem(error)}; export the model again") from None


def _changed(path: Path) -> str:
    return f"{path}: changed since the bundle was sealed (SHA-256 differs); copy it again or export the model again"
