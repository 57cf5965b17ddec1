"""A folder of synthetic radiographs in the layout of Kermany's chest X-ray set.

How hard the task is, measured on 500 images at 64 pixels, split by patient (two folds): a CNN of three layers trained
for 40 epochs (about a minute on one CPU core) reaches an AUROC of 0.95 to 0.99, a logistic regression over the
gray-level histogram 0.75.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pneumo.pipeline.data.phantom.opacities import Kind
from pneumo.pipeline.data.phantom.radiograph import LABELS, Patient, check_size, choose_kind
from pneumo.pipeline.data.phantom.scanner import Scanner
from pneumo.serving.contracts.errors import InputError

VERSION = 1  # of the drawing: raise it when the pixels change
RECORD = "phantom.json"
PARTIAL = "phantom.json.partial"
_MOST_SHOTS = 4


@dataclass(frozen=True)
class PhantomSummary:
    """Facts about a folder of synthetic radiographs: path, images, simulated patients, images by class, seed."""

    out: Path
    images: int
    patients: int
    counts: dict[str, int]
    seed: int


@dataclass(frozen=True)
class Recipe:
    """The parameters that decide the content of a folder.

    Attributes:
        version: Version of the drawing.
        images: Number of images, at least 1.
        seed: Seed, 0 or more.
        size: Side in pixels, 32 to 4096.
        pneumonia_share: Share of images with pneumonia, 0 to 1.
        scanner: The detector; the default leaves the pictures unchanged.

    Raises:
        InputError: A parameter is out of range.
    """

    version: int = field(default=VERSION, kw_only=True)
    images: int = 400
    seed: int = 0
    size: int = 224
    pneumonia_share: float = 0.5
    scanner: Scanner = field(default_factory=Scanner)

    def __post_init__(self) -> None:
        if self.images < 1:
            raise InputError(f"phantom: images is {self.images}; ask for at least 1")
        if self.seed < 0:
            raise InputError(f"phantom: seed is {self.seed}; choose 0 or more")
        if not 0.0 <= self.pneumonia_share <= 1.0:
            raise InputError(f"phantom: pneumonia_share is {self.pneumonia_share}; choose a share from 0 to 1")
        check_size(self.size)

    def shots(self) -> Iterator["_Shot"]:
        """Yield every image, patient by patient."""
        pneumonia = round(self.images * self.pneumonia_share)
        for label, wanted in zip(LABELS, (self.images - pneumonia, pneumonia), strict=True):
            done = patient = 0
            while done < wanted:
                rng = _stream(self.seed, label, patient)
                taken = 1 + int(rng.random() * _MOST_SHOTS)
                kind = choose_kind(label, rng)
                for shot in range(min(taken, wanted - done)):
                    yield _Shot(label, kind, patient, shot, _choose_path(label, kind, patient, shot, done + shot))
                done += taken
                patient += 1


@dataclass(frozen=True)
class _Shot:
    """One image: the patient's number in the class, the shot's number in the patient, the path under the folder."""

    label: str
    kind: Kind | None
    patient: int
    shot: int
    path: str


def write_phantoms(
    out: Path, recipe: Recipe | None = None, *, progress: Callable[[int], None] | None = None
) -> PhantomSummary:
    """Write a set of synthetic radiographs: `out/train/NORMAL` and `out/train/PNEUMONIA`, gray PNG of 8 bits.

    Names follow Kermany's patterns, a patient has one to four images, and all are under `train`: the importer makes the
    splits. The pixels of an image depend only on the seed, size, scanner, and its class, patient and shot, so a larger
    set begins with the images of a smaller one. (The bytes of the PNG also depend on Pillow's zlib.)

    A folder that already holds this set is left unchanged; the set of an interrupted call is drawn again.

    Args:
        out: The folder; new, empty, or written by an earlier call.
        recipe: Number of images, seed, size, share of pneumonia and scanner; the defaults if None.
        progress: Called after each image with the number drawn so far.

    Raises:
        InputError: `out` holds something else or cannot be written.
    """
    recipe = recipe or Recipe()
    shots = list(recipe.shots())
    if not _claim_folder(out, recipe):
        _draw_images(out, recipe, shots, progress)
        (out / PARTIAL).replace(out / RECORD)
    patients = len({(shot.label, shot.patient) for shot in shots})
    counts = {label: sum(shot.label == label for shot in shots) for label in LABELS}
    return PhantomSummary(out, len(shots), patients, counts, recipe.seed)


def _claim_folder(out: Path, recipe: Recipe) -> bool:
    """Return True if out already holds the set; else leave only the marker of an unfinished set in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        files = (path.relative_to(out) for path in out.rglob("*") if not path.is_dir())
        present = {path.as_posix() for path in files if not path.name.startswith(".")}
        names = present - {RECORD, PARTIAL}
        complete = RECORD in present
        earlier = _read_recipe(out / (RECORD if complete else PARTIAL))
        planned = {shot.path for shot in earlier.shots()} if earlier else set()
        if not names <= planned:
            raise InputError(f"{out}: holds files that are not of a phantom set; choose a new or an empty folder")
        if complete and earlier:
            if earlier != recipe:
                raise InputError(
                    f"{out}: holds a phantom set of other parameters ({_list_differences(earlier, recipe)}); "
                    "choose a new folder, or delete this one"
                )
            if names == planned:
                return True
        shutil.rmtree(out / "train", ignore_errors=True)
        (out / PARTIAL).write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
        (out / RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    return False


def _draw_images(out: Path, recipe: Recipe, shots: list[_Shot], progress: Callable[[int], None] | None) -> None:
    drawn: tuple[str, int] | None = None
    for number, shot in enumerate(shots, start=1):
        if drawn != (shot.label, shot.patient):
            drawn = (shot.label, shot.patient)
            patient = Patient.sample(shot.kind, _stream(recipe.seed, shot.label, shot.patient, 0))
        rng = _stream(recipe.seed, shot.label, shot.patient, 1 + shot.shot)
        target = out / shot.path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(patient.shoot(rng, size=recipe.size, scanner=recipe.scanner)).save(target, compress_level=1)
        if progress is not None:
            progress(number)


def _stream(seed: int, label: str, patient: int, *part: int) -> np.random.Generator:
    """Return the random stream of a patient, or of one part of it; no stream's key is another's with zeros after it."""
    return np.random.default_rng([seed, LABELS.index(label), 1 + patient, *(1 + p for p in part)])


def _choose_path(label: str, kind: Kind | None, patient: int, shot: int, number: int) -> str:
    """Return a path in Kermany's patterns; number counts the images of the class."""
    if kind is not None:
        return f"train/{label}/person{patient + 1}_{kind}_{number + 1}.png"
    prefix = "NORMAL2-IM" if patient % 2 else "IM"
    return f"train/{label}/{prefix}-{patient + 1:04}-{shot + 1:04}.png"


def _read_recipe(path: Path) -> Recipe | None:
    """Return the recipe in a record, None if there is none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return Recipe(**{**record, "scanner": Scanner(**record["scanner"])})
    except (ValueError, TypeError, KeyError, InputError, FileNotFoundError):
        return None


def _list_differences(earlier: Recipe, wanted: Recipe) -> str:
    then, now = asdict(earlier), asdict(wanted)
    return ", ".join(f"{key}: {then[key]} there, {now[key]} requested" for key in then if then[key] != now[key])
