"""A folder of synthetic radiographs in the layout of Kermany's chest X-ray set.

How hard the task is, measured on 500 images at 64 pixels, split by patient (two folds): a CNN of three layers trained
for 40 epochs (about a minute on one CPU core) reaches an AUROC of 0.95 to 0.99, a logistic regression over the
gray-level histogram 0.75.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    """What `write` left in a folder.

    Attributes:
        out: The folder.
        images: Number of images.
        patients: Number of simulated people.
        counts: Number of images of each class.
        seed: The seed that they were drawn with.
    """

    out: Path
    images: int
    patients: int
    counts: dict[str, int]
    seed: int


@dataclass(frozen=True)
class _Recipe:
    """All that decides the content of a folder."""

    version: int
    images: int
    seed: int
    size: int
    pneumonia_share: float
    scanner: Scanner

    @classmethod
    def parse(cls, text: str) -> "_Recipe":
        record: dict[str, Any] = json.loads(text)
        return cls(**{**record, "scanner": Scanner(**record["scanner"])})

    def dump(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

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
                    yield _Shot(label, kind, patient, shot, _name(label, kind, patient, shot, done + shot))
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
    out: Path,
    *,
    images: int = 400,
    seed: int = 0,
    size: int = 224,
    scanner: Scanner | None = None,
    pneumonia_share: float = 0.5,
    progress: Callable[[int], None] | None = None,
) -> PhantomSummary:
    """Write a set of synthetic radiographs: `out/train/NORMAL` and `out/train/PNEUMONIA`, gray PNG of 8 bits.

    Names follow Kermany's patterns, a patient has one to four images, and all is under `train`: the importer makes the
    splits. The pixels of an image depend on the seed, its class, patient and shot (and on size and scanner) alone, so a
    larger set begins with the images of a smaller one. (The bytes of the PNG also depend on Pillow's zlib.)

    A folder that already holds the very set is left as it is; one that an interrupted call left is drawn again.

    Args:
        out: The folder; new, empty, or written by an earlier call.
        images: How many images, at least 1.
        seed: 0 or more.
        size: Side in pixels, 32 to 4096.
        scanner: How the detector renders; None leaves the pictures as they are.
        pneumonia_share: Share of images with pneumonia, 0 to 1.
        progress: Called after each image with the number drawn so far.

    Raises:
        InputError: A parameter is out of range, or `out` holds something else or cannot be written.
    """
    recipe = _Recipe(VERSION, images, seed, size, pneumonia_share, scanner or Scanner())
    _check(recipe)
    shots = list(recipe.shots())
    if not _claim(out, recipe):
        _draw(out, recipe, shots, progress)
        (out / PARTIAL).replace(out / RECORD)
    return PhantomSummary(
        out=out,
        images=len(shots),
        patients=len({(shot.label, shot.patient) for shot in shots}),
        counts={label: sum(shot.label == label for shot in shots) for label in LABELS},
        seed=seed,
    )


def _check(recipe: _Recipe) -> None:
    if recipe.images < 1:
        raise InputError(f"phantom: images is {recipe.images}; ask for at least 1")
    if recipe.seed < 0:
        raise InputError(f"phantom: seed is {recipe.seed}; choose 0 or more")
    if not 0.0 <= recipe.pneumonia_share <= 1.0:
        raise InputError(f"phantom: pneumonia_share is {recipe.pneumonia_share}; choose a share from 0 to 1")
    check_size(recipe.size)


def _claim(out: Path, recipe: _Recipe) -> bool:
    """Return True where out already holds the set; else leave it holding the marker of an unfinished set alone."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        present = _files(out)
        names = present - {RECORD, PARTIAL}
        for marker in (RECORD, PARTIAL):
            if marker not in present:
                continue
            earlier = _read(out / marker)
            if earlier is None and not names:
                continue  # interrupted while the marker was written
            if earlier is None or not names <= (planned := {shot.path for shot in earlier.shots()}):
                raise InputError(f"{out}: holds files that are not of a phantom set; choose a new or an empty folder")
            if marker == RECORD and earlier != recipe:
                raise InputError(
                    f"{out}: holds a phantom set of other parameters ({_difference(earlier, recipe)}); "
                    "choose a new folder, or delete this one"
                )
            if marker == RECORD and names == planned:
                return True
            shutil.rmtree(out / "train", ignore_errors=True)
            break
        else:
            if names:
                raise InputError(f"{out}: is not empty; choose a new or an empty folder")
        (out / PARTIAL).write_text(recipe.dump(), encoding="utf-8")
        (out / RECORD).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror}); choose another folder") from error
    return False


def _draw(out: Path, recipe: _Recipe, shots: list[_Shot], progress: Callable[[int], None] | None) -> None:
    """Draw every image of the recipe."""
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


def _name(label: str, kind: Kind | None, patient: int, shot: int, number: int) -> str:
    """Return a path in Kermany's patterns; number counts the images of the class."""
    if kind is not None:
        return f"train/{label}/person{patient + 1}_{kind}_{number + 1}.png"
    prefix = "NORMAL2-IM" if patient % 2 else "IM"
    return f"train/{label}/{prefix}-{patient + 1:04}-{shot + 1:04}.png"


def _files(folder: Path) -> set[str]:
    """Return the files under a folder, hidden ones left out, as paths relative to it."""
    paths = (path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir())
    return {path.as_posix() for path in paths if not path.name.startswith(".")}


def _read(path: Path) -> _Recipe | None:
    """Return the recipe in a record, or None where it is not one."""
    try:
        return _Recipe.parse(path.read_text(encoding="utf-8"))
    except (ValueError, TypeError, KeyError, InputError):
        return None


def _difference(earlier: _Recipe, wanted: _Recipe) -> str:
    """Return the parameters that differ, as one line."""
    then, now = asdict(earlier), asdict(wanted)
    return ", ".join(f"{key}: {then[key]} there, {now[key]} asked for" for key in then if then[key] != now[key])
