"""The JPEG files that are sent."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pneumo.pipeline.data import phantom

SIZES = {"224 x 224": (224, 224), "1500 x 1200": (1500, 1200)}
"""Width and height."""

COUNT = 8
QUALITY = 90
ARCHIVE = "chest_xray_224_train.tar"


def write(folder: Path) -> tuple[dict[str, Path], str]:
    """Write `COUNT` files of each size.

    Returns:
        The folder of each size, and a word on what they show.
    """
    real = Path(os.environ.get("PNEUMO_REAL_DATA", "")) / ARCHIVE
    pictures, source = (_real(real), "real X-rays") if real.is_file() else (_drawn(), "synthetic X-rays")
    folders = {}
    for name, (width, height) in SIZES.items():
        folders[name] = folder / name.replace(" ", "")
        folders[name].mkdir()
        for index, picture in enumerate(pictures):
            shown = Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)
            shown.save(folders[name] / f"{index}.jpeg", quality=QUALITY)
    return folders, source


def _drawn() -> list[NDArray[np.uint8]]:
    labels = ("NORMAL", "PNEUMONIA")
    return [
        phantom.draw_radiograph(labels[index % 2], np.random.default_rng(index), size=1024) for index in range(COUNT)
    ]


def _real(archive: Path) -> list[NDArray[np.uint8]]:
    with tarfile.open(archive) as files:
        members = [member for member in files if member.isfile() and member.name.endswith(".jpeg")]
        chosen = [files.extractfile(member) for member in members[:: len(members) // COUNT][:COUNT]]
        contents = [file.read() for file in chosen if file]
    return [np.asarray(Image.open(io.BytesIO(content)).convert("L")) for content in contents]
