"""The folder of a case browser: a page that opens from a disk, its data, sprites, images and heat maps."""

import hashlib
import importlib.metadata
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np

from pneumo.pipeline.cases.images import COLUMNS, PER_SPRITE, compute_features, find_nearest, write_sprite
from pneumo.pipeline.cases.predictions import UNMATCHED, Predictions
from pneumo.pipeline.data.manifest import Row, group_names
from pneumo.pipeline.data.training_images import read_prepared
from pneumo.pipeline.evaluation.cases import Ints
from pneumo.pipeline.evaluation.label_errors import find_label_errors
from pneumo.pipeline.evaluation.report.mistakes import order_by_mistake
from pneumo.pipeline.runs.reporter import SILENT, Reporter
from pneumo.serving.contracts.arrays import Float32, Float64
from pneumo.serving.contracts.cores import available_cores
from pneumo.serving.contracts.errors import InputError
from pneumo.serving.contracts.files import atomic_path, replace_folder
from pneumo.serving.images.types import Gray
from pneumo.serving.inference.explanation import explain_image
from pneumo.serving.model.heatmap import encode_heat
from pneumo.serving.model.predictor import Predictor
from pneumo.serving.pages.assets import WEB as SHARED

WEB = Path(__file__).parent / "web"
RECORD = "cases.json"
HEATS = 500
"""Most heat maps that are made in advance, for the worst mistakes: occlusion takes up to a second each."""

_SHARED = (SHARED / "csv.js", SHARED / "wording.js")
_SCRIPTS = tuple(WEB / name for name in ("facets.js", "tags.js", "list.js", "detail.js", "page.js"))
_STYLES = (SHARED / "colours.css", SHARED / "viewer.css", WEB / "cases.css")
_EXPORT = re.compile(r"^export (?=\w+ (\w+))", re.MULTILINE)
_IMPORT = re.compile(r"^import .*\n", re.MULTILINE)
_README = "X-ray images of a data set: keep and delete this copy as the images themselves. Not a medical device.\n"


@dataclass(frozen=True)
class Subject:
    """What a case browser shows: predictions, their networks in order, and the predictions of a second model."""

    first: Predictions
    predictors: Sequence[Predictor]
    second: Predictions | None = None

    @property
    def order(self) -> Ints:
        """Positions of the cases in the predictions, by their numbers on the page, [N]."""
        return order_by_mistake(self.first.cases)

    def find_predictor(self, number: int) -> Predictor:
        """Return the network that predicted a case, by its number on the page."""
        return self.predictors[int(self.first.network[self.order[number]])]

    def compute_digest(self) -> str:
        """Return a SHA-256 of all that the folder is made from, hexadecimal."""
        digest = hashlib.sha256(importlib.metadata.version("pneumo").encode())
        for each in filter(None, (self.first, self.second)):
            files = [file for run in each.networks for file in (run.record_file, run.predictions, run.metrics)]
            for file in (each.folder.record_file, each.folder.predictions, *files):
                digest.update(file.read_bytes())
        return digest.hexdigest()


def refuse_foreign(out: Path) -> None:
    """Raise an `InputError` if a folder holds something else than a case browser."""
    if out.exists() and not (out / RECORD).is_file() and (out.is_file() or any(out.iterdir())):
        raise InputError(f"{out}: holds something that is not a case browser; choose another --out")


def write_cases(subject: Subject, out: Path, reporter: Reporter = SILENT) -> bool:
    """Write the folder of a case browser, in place of an older one; return False if the same is there already.

    Raises:
        InputError: `out` holds something else, or an image is missing, damaged or changed since the import.
    """
    refuse_foreign(out)
    record = f'{{"digest": "{subject.compute_digest()}"}}\n'
    if (out / RECORD).is_file() and (out / RECORD).read_text(encoding="utf-8") == record:
        return False
    rows = subject.first.list_rows()
    rows = [rows[place] for place in subject.order]
    with replace_folder(out) as folder:
        (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # images of patients belong in no repository
        for name in ("sprites", "images", "heat"):
            (folder / name).mkdir()
        with reporter.waiting(f"reading {len(rows):,} images"):
            data = describe_cases(subject, rows, _write_images(subject, rows, folder))
        with reporter.waiting(f"making heat maps of {data['heats']} mistakes"):
            for number in range(data["heats"]):
                write_heat(folder, number, subject.find_predictor(number))
        texts = {
            "data.js": f"window.CASES = {json.dumps(data, separators=(',', ':'), allow_nan=False)};\n",
            "page.js": _read(SHARED / "viewer.js") + join_scripts(),
            "page.css": "".join(map(_read, _STYLES)),
            "index.html": _read(WEB / "index.html"),
            "README.txt": _README,
            RECORD: record,
        }
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    return True


def write_heat(folder: Path, number: int, predictor: Predictor) -> None:
    """Write the heat map of a case, by its number, as a PNG to lay over its image."""
    explanation = explain_image(predictor, (folder / "images" / f"{number}.png").read_bytes())
    with atomic_path(folder / "heat" / f"{number}.png") as path:
        path.write_bytes(encode_heat(explanation.heat))


def join_scripts() -> str:
    """Return the page's modules as one classic script: a page that was opened from a disk can load no module.

    What the service's modules export is named `CSV.csv` and so on: `import * as CSV` is the only form of import.
    """
    parts = ["(() => {\n", '"use strict";\n']
    for file in _SHARED:
        text = _read(file)
        body, names = _EXPORT.sub("", text), ", ".join(_EXPORT.findall(text))
        parts.append(f"const {file.stem.upper()} = (() => {{\n{body}return {{ {names} }};\n}})();\n")
    return "".join([*parts, *(_IMPORT.sub("", _read(file)) for file in _SCRIPTS), "})();\n"])


def _read(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _write_images(subject: Subject, rows: Sequence[Row], folder: Path) -> list[tuple[Float32, Float64]]:
    """Copy images under their numbers, write sprites, and return for each network what `compute_features` does."""
    dataset, parts = subject.first.dataset, []

    def copy(item: tuple[int, Row]) -> Gray:
        content, gray = read_prepared(dataset, item[1], dataset.info.size)
        (folder / "images" / f"{item[0]}.png").write_bytes(content)
        return gray

    with ThreadPoolExecutor(max_workers=available_cores()) as pool:
        for number, chunk in enumerate(batched(enumerate(rows), PER_SPRITE)):
            images = list(pool.map(copy, chunk))
            write_sprite(folder / "sprites" / f"{number}.jpg", images)
            parts.append([compute_features(images, predictor) for predictor in subject.predictors])
    outputs = (zip(*network, strict=True) for network in zip(*parts, strict=True))
    return [(np.concatenate(features), np.concatenate(scores)) for features, scores in outputs]


def describe_cases(subject: Subject, rows: Sequence[Row], outputs: Sequence[tuple[Float32, Float64]]) -> dict[str, Any]:
    """Return what the page shows as JSON: facts, and a column for each property of the images.

    `rows` are in the order of the page; so are features [N, D] and scores [N] of each network in `outputs`.
    """
    first, cases, order = subject.first, subject.first.cases, subject.order
    network, patient = first.network[order], cases.patient[order]
    limits = np.array([predictor.bundle.info.outlier.limit for predictor in subject.predictors])[network]
    scores = np.stack([each for _, each in outputs])[network, np.arange(len(network))]
    near: list[list[int]] = [[] for _ in rows]
    for number, (features, _) in enumerate(outputs):
        asked = np.flatnonzero(network == number)
        found = find_nearest(features, first.training[number, order], patient, asked)
        for place, some in zip(asked, found, strict=True):
            near[place] = some
    errors = find_label_errors(first.folder, first.dataset)
    ranks = {suspect.image: rank for rank, suspect in enumerate(errors.ranking)}
    second = None
    if other := subject.second:
        matched = first.match(other)[order]
        second = _describe_answers(other, matched) | {"matched": (matched != UNMATCHED).tolist()}
    return {
        **_describe_answers(first, order),
        "second": second,
        "data": first.dataset.folder.name,
        "remark": first.remark,
        "fingerprint": first.dataset.info.fingerprint,
        "classes": first.classes,
        "positive": cases.positive,
        "folds": (network + 1).tolist() if len(first.networks) > 1 else None,
        "likely": errors.likely,
        "heats": min(int((~cases.correct).sum()), HEATS),
        "thumbs": {"across": COLUMNS, "count": PER_SPRITE},
        "groups": {name: [row.groups.get(name, "") for row in rows] for name in group_names(rows)},
        "columns": {
            **{name: [getattr(row, name) for row in rows] for name in ("image", "source", "patient")},
            "split": first.split[order].tolist(),
            "label": cases.truth[order].tolist(),
            "certain": (cases.certain[order] & (scores <= limits)).tolist(),
            "outlier": scores.tolist(),
            "limit": limits.tolist(),
            "flagged": (scores > limits).tolist(),
            "rank": [ranks.get(row.image, UNMATCHED) for row in rows],
            "near": near,
        },
    }


def _describe_answers(predictions: Predictions, places: Ints) -> dict[str, Any]:
    thresholds = [predictions.thresholds[number] for number in predictions.network[places]]
    return {
        "name": predictions.folder.name,
        "config": Path(predictions.config).name,
        "answer": predictions.cases.answer[places].tolist(),
        "p": predictions.cases.probabilities[places].tolist(),
        "thresholds": None if predictions.cases.positive is None else thresholds,
    }
