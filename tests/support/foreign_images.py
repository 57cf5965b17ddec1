"""Images that are no upright chest X-ray."""

from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from pneumo.pipeline.drift.grades import PHOTOGRAPHS

ORGANS = ("hand", "skull", "pelvis")


def make_foreign_images(xrays: Sequence[np.ndarray], seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Kinds of images that a chest X-ray model must not take, each uint8 [S, S] as the X-rays are."""
    rng = np.random.default_rng(seed)
    size = xrays[0].shape[0]
    return {
        "uniform noise": [rng.integers(0, 256, (size, size)).astype(np.uint8) for _ in range(40)],
        "gaussian noise": [gaussian(size, rng) for _ in range(40)],
        "flat": [np.full((size, size), level, np.uint8) for level in range(0, 256, 5)],
        "photo": list(photos(size, rng)),
        "upside down": [np.flipud(image).copy() for image in xrays],
        "turned by 180 degrees": [np.rot90(image, 2).copy() for image in xrays],
        "inverted": [255 - image for image in xrays],
        "other organ": [draw_organ(ORGANS[number % 3], size, rng) for number in range(60)],
    }


def gaussian(size: int, rng: np.random.Generator) -> np.ndarray:
    values = rng.normal(rng.uniform(60, 190), rng.uniform(10, 70), (size, size))
    return np.clip(values, 0, 255).astype(np.uint8)


def photos(size: int, rng: np.random.Generator, crops: int = 4) -> Iterator[np.ndarray]:
    """Each photo whole, then parts of it, turned."""
    import skimage.data

    for name in PHOTOGRAPHS:
        photo = Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("L")
        yield np.asarray(photo.resize((size, size), Image.Resampling.BILINEAR))
        for turn in range(crops):
            width, height = (int(side * rng.uniform(0.4, 1.0)) for side in photo.size)
            left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
            part = photo.crop((left, top, left + width, top + height)).rotate(90 * turn, expand=True)
            yield np.asarray(part.resize((size, size), Image.Resampling.BILINEAR))


def draw_organ(kind: str, size: int, rng: np.random.Generator) -> np.ndarray:
    """A radiograph of a hand, a skull or a pelvis from simple shapes: exposure, pose and noise vary."""
    canvas = Canvas(rng)
    {"hand": hand, "skull": skull, "pelvis": pelvis}[kind](canvas, rng)
    image = canvas.image.rotate(rng.normal(0, 6), translate=(int(rng.normal(0, 10)), int(rng.normal(0, 10))))
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1.5, 4))).resize((size, size), Image.Resampling.BILINEAR)
    noisy = np.asarray(image, dtype=float) + rng.normal(0, rng.uniform(2, 6), (size, size))
    return np.clip(noisy, 0, 255).astype(np.uint8)


class Canvas:
    """Shapes in shares of the side, in the gray of soft tissue or bone."""

    side = 448

    def __init__(self, rng: np.random.Generator) -> None:
        self.soft, self.bone = int(rng.uniform(60, 110)), int(rng.uniform(170, 235))
        self.image = Image.new("L", (self.side, self.side), int(rng.uniform(0, 25)))
        self.pen = ImageDraw.Draw(self.image)

    def ellipse(self, x: float, y: float, across: float, down: float, gray: int) -> None:
        self.pen.ellipse([self.side * value for value in (x - across, y - down, x + across, y + down)], fill=gray)

    def box(self, left: float, top: float, right: float, bottom: float, gray: int) -> None:
        self.pen.rectangle([self.side * value for value in (left, top, right, bottom)], fill=gray)

    def bar(self, start: tuple[float, float], end: tuple[float, float], width: float, gray: int) -> None:
        self.pen.line([self.side * value for value in (*start, *end)], fill=gray, width=int(width * self.side))
        for x, y in (start, end):
            self.ellipse(x, y, width / 2, width / 2, gray)


def hand(canvas: Canvas, rng: np.random.Generator) -> None:
    x = rng.normal(0.5, 0.03)
    canvas.ellipse(x, 0.72, 0.2, 0.22, canvas.soft)
    canvas.box(x - 0.12, 0.85, x + 0.12, 1.1, canvas.soft)
    roots = [(-0.17, 0.62), (-0.10, 0.55), (-0.02, 0.53), (0.07, 0.55), (0.15, 0.60)]
    tips = [(-0.36, 0.38), (-0.16, 0.12), (-0.03, 0.06), (0.10, 0.10), (0.24, 0.22)]
    fingers = [
        ((x + a, b), (x + c + rng.normal(0, 0.015), d + rng.normal(0, 0.02)))
        for (a, b), (c, d) in zip(roots, tips, strict=True)
    ]
    for root, tip in fingers:
        canvas.bar(root, tip, 0.085, canvas.soft)
    for root, tip in fingers:
        wrist = np.array([x + (root[0] - x) * 0.4, 0.84])
        reach = np.array(tip) - wrist
        for start, end in ((0.01, 0.28), (0.37, 0.58), (0.65, 0.80), (0.87, 0.98)):
            canvas.bar(tuple(wrist + reach * start), tuple(wrist + reach * end), 0.035, canvas.bone)
    for _ in range(8):
        canvas.ellipse(x + rng.uniform(-0.09, 0.09), 0.86 + rng.uniform(-0.03, 0.04), 0.035, 0.03, canvas.bone - 20)
    canvas.bar((x - 0.06, 0.92), (x - 0.06, 1.05), 0.07, canvas.bone)
    canvas.bar((x + 0.07, 0.92), (x + 0.07, 1.05), 0.05, canvas.bone)


def skull(canvas: Canvas, rng: np.random.Generator) -> None:
    x, y = rng.normal(0.5, 0.03), rng.normal(0.42, 0.02)
    across, down = rng.normal(0.33, 0.02), rng.normal(0.36, 0.02)
    canvas.ellipse(x, y, across, down, canvas.bone)
    canvas.ellipse(x, y, across - 0.035, down - 0.035, canvas.soft + 50)
    canvas.box(x - 0.17, y + 0.25, x + 0.17, y + 0.48, canvas.soft + 60)
    for side in (-1, 1):
        canvas.ellipse(x + side * 0.13, y + 0.12, 0.09, 0.085, canvas.bone)
        canvas.ellipse(x + side * 0.13, y + 0.12, 0.075, 0.07, canvas.soft - 20)
    canvas.ellipse(x, y + 0.25, 0.045, 0.06, canvas.soft - 30)
    for tooth in range(8):
        canvas.box(x - 0.14 + 0.035 * tooth, y + 0.36, x - 0.115 + 0.035 * tooth, y + 0.43, canvas.bone + 15)
    canvas.box(x - 0.11, y + 0.48, x + 0.11, 1.2, canvas.soft)
    for disc in range(4):
        canvas.box(x - 0.05, y + 0.5 + 0.06 * disc, x + 0.05, y + 0.545 + 0.06 * disc, canvas.bone - 30)


def pelvis(canvas: Canvas, rng: np.random.Generator) -> None:
    x = rng.normal(0.5, 0.03)
    canvas.box(0.04, 0, 0.96, 1, canvas.soft)
    for disc in range(5):
        canvas.box(x - 0.07, 0.075 * disc, x + 0.07, 0.06 + 0.075 * disc, canvas.bone - 10)
    for side in (-1, 1):
        canvas.ellipse(x + side * 0.26, 0.375, 0.17, 0.175, canvas.bone - 25)
        canvas.ellipse(x + side * 0.17, 0.71, 0.09, 0.11, canvas.bone - 20)
        canvas.ellipse(x + side * 0.17, 0.715, 0.055, 0.065, canvas.soft)
        canvas.ellipse(x + side * 0.33, 0.615, 0.07, 0.065, canvas.bone + 10)
        canvas.bar((x + side * 0.37, 0.66), (x + side * 0.36, 1.05), 0.09, canvas.bone)
    canvas.ellipse(x, 0.45, 0.09, 0.12, canvas.bone - 15)
    canvas.ellipse(x, 0.575, 0.16, 0.105, canvas.soft + 5)
