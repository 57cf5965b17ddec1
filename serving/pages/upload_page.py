"""The upload page as HTML: the drop area, and the model with its reported metrics."""

import importlib.metadata
import json
import re
from html import escape

from pneumo.serving.contracts.figures import format_estimate, format_figure, format_interval
from pneumo.serving.contracts.schemas import NOTICE
from pneumo.serving.inference.service import State
from pneumo.serving.model.bundle import BundleInfo
from pneumo.serving.pages.assets import read_template, render_head
from pneumo.serving.pages.reported_metrics import read_metrics, read_splits

_NO_MODEL = {
    State.LOADING: "The model is loading. You can already choose images: they are sent when it is ready.",
    State.DRAINING: "The service is stopping. Reload this page in a moment.",
    State.FAILED: "The model could not be loaded. The log of the service shows the reason.",
}


_PHANTOM = "This model was trained on phantoms, which are synthetic images. Its answers mean nothing for real X-rays."


def render_upload_page(
    info: BundleInfo | None, state: State, *, max_bytes: int, logs: bool = False, account: str = "", root: str = ""
) -> str:
    """Render the page as HTML, with the model that answers, or the state of the service if none is loaded.

    `max_bytes` is the largest request body, `logs` tells if a prediction log is kept, which the drift dashboard needs.
    `account` is HTML to sign in or out, `root` the start of links: the path at which a proxy publishes the service, or
    nothing.
    """
    return read_template("index.html").substitute(
        head=render_head("chest X-ray classifier", root),
        notice=f"{NOTICE[0].upper()}{NOTICE[1:]}",
        release=escape(importlib.metadata.version("pneumo")),
        drift=f'<a href="{root}drift">Drift</a> ' if logs else "",
        account=account,
        root=root,
        max_bytes=max_bytes,
        max_size=_format_size(max_bytes),
        banner=f'<p class="note">{_PHANTOM}</p>' if info is not None and info.is_phantom else "",
        model=_render_model(info, state).rstrip(),
    )


def _format_size(count: int) -> str:
    for unit, factor in (("MB", 1_000_000), ("kB", 1_000)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


def _render_model(info: BundleInfo | None, state: State) -> str:
    if info is None:
        words = _NO_MODEL.get(state, _NO_MODEL[State.LOADING])
        return read_template("no_model.html").substitute(state=state.value, words=words)
    if info.positive_class is None:
        task = f"{', '.join(info.classes[:-1])} and {info.classes[-1]}"
    else:
        task = f"{info.positive_class} from {_find_negative_class(info)}"
    words = f"Distinguishes {task} in chest X-rays. {info.origin[0].upper()}{info.origin[1:]}."
    return read_template("model.html").substitute(
        state=state.value,
        name=escape(info.name),
        version=escape(info.version),
        sets=escape(json.dumps(_list_sets(info))),
        task=escape(words),
        facts="\n".join(
            f"    <div><dt>{escape(name)}</dt><dd>{escape(value)} <small>{escape(remark)}</small></dd></div>"
            for name, value, remark in _list_facts(info)
        ),
    )


def _find_negative_class(info: BundleInfo) -> str:
    return next(name for name in info.classes if name != info.positive_class)


def _list_sets(info: BundleInfo) -> dict[str, dict[str, float | str | None]]:
    """Return the conformal limit of each class and its measured coverage, for the script that words certainty.

    Coverage of validation images is none: the limits were fitted to them.
    """
    split, _ = read_metrics(info)
    sets: dict[str, dict[str, float | str | None]] = {}
    for name, limit in zip(info.classes, info.conformal.limit, strict=True):
        measured = split.metrics.get(f"coverage:{name}")
        sets[name] = {"limit": limit, "coverage": None}
        if measured is not None and measured.value is not None and split.name != "validation":
            words = f"Prediction sets cover {format_estimate(measured)} of {name} images of the {split.name}"
            sets[name] |= {"coverage": measured.value, "words": f"{words}{' split' if split.name == 'test' else ''}."}
    return sets


def _list_facts(info: BundleInfo) -> list[tuple[str, str, str]]:
    """List name, value and remark of what a reader should know about a model before relying on it."""
    split, level = read_metrics(info)

    def measure(name: str, metric: str, remark: str) -> list[tuple[str, str, str]]:
        measured = split.metrics.get(metric)
        if measured is None or measured.value is None:
            return []
        if bounds := format_interval(measured):
            remark += f"; {level:.0%} confidence interval {bounds}"
        return [(name, format_figure(measured.value), remark)]

    count = f"{split.images:,} " if split.images else ""
    facts = [("Name", info.name, f"version {info.version}"), *_list_origin(info)]
    facts += measure("AUROC", "auroc", f"on {count}{split.name} images")
    if info.positive_class is None:
        return [*facts, ("Prediction", "most probable class", "")]
    threshold = format_figure(info.thresholds["default"])
    return [
        *facts,
        ("Threshold", threshold, f"Called {info.positive_class} at {threshold} or above; policy: {info.policy}"),
        *measure("Sensitivity", "sensitivity", f"of {info.positive_class} images correctly flagged"),
        *measure("Specificity", "specificity", f"of {_find_negative_class(info)} images correctly not flagged"),
    ]


def _list_origin(info: BundleInfo) -> list[tuple[str, str, str]]:
    """List the data set of a model with its size, and the day of its training, as far as the bundle tells them."""
    train = read_splits(info).splits.get("train")
    size = f"{train.images:,} training images" if train and train.images else ""
    patients = f" of {train.patients:,} patients" if train and size and train.patients else ""
    source = str(info.provenance.get("source") or info.metrics.get("data") or "")
    day = re.match(r"(\d{4})(\d\d)(\d\d)T", str(info.provenance.get("run", "")))
    pixels = f"on images of {info.preparation.width} x {info.preparation.height} pixels"
    data = [("Data set", source or "not named", f"{size}{patients}")] if source or size else []
    return data + ([("Trained", "-".join(day.groups()), pixels)] if day else [])
