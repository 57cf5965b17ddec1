"""The pictures of the reference of configs show what the augmentations do now."""

import runpy
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.paths import ROOT


def test_the_pictures_are_current(ludwig: object) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "hooks" / "augmentation_pictures.py"))
    folder: Path = script["FOLDER"]

    drawn = dict(script["draw_pictures"]())

    assert set(drawn) == {path.stem for path in folder.iterdir()}
    for kind, picture in drawn.items():
        kept = np.asarray(Image.open(folder / f"{kind}.webp").convert("L"), dtype=float)
        assert kept.shape == np.shape(picture), kind
        assert np.abs(kept - np.asarray(picture, dtype=float)).mean() < 4, f"{kind}: run {script['__file__']}"
