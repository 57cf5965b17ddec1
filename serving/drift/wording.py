"""Differences between window and reference in words, for people who take radiographs."""

from collections.abc import Sequence

from pneumo.serving.contracts.quantities import format_count
from pneumo.serving.contracts.sites import NO_SITE, OTHER_SITES
from pneumo.serving.drift.verdict import ColumnResult, DriftCheck, SiteCheck, Verdict

TOP = 3
"""Maximum columns, sites or classes of a sentence."""

SITE_HEADS = ["site", "images", "uncertain", "predicted", "verdict", "summary"]

TESTS = {
    "anderson": "Anderson-Darling",
    "fisher": "Fisher's exact",
    "all_inside": "most extreme images",
    "mmd": "maximum mean discrepancy",
}

_IMAGES_ARE = "images are "
_WORDS = {
    "mean": ("images are brighter", "images are darker"),
    "contrast": ("images are higher in contrast", "images are lower in contrast"),
    "entropy": ("images are higher in entropy", "images are lower in entropy"),
    "sharpness": ("images are sharper", "images are blurrier"),
    "noise": ("images are noisier", "images are less noisy"),
    "black": ("images are higher in black pixels", "images are lower in black pixels"),
    "white": ("images are more overexposed", "images are less overexposed"),
    "aspect": ("images are wider in shape", "images are taller in shape"),
    "width": ("images are wider in pixels", "images are narrower in pixels"),
    "height": ("images are taller in pixels", "images are lower in pixels"),
    "outlier_score": ("images are more out-of-distribution", "images are less out-of-distribution"),
    "out_of_distribution": ("more images are out-of-distribution", "fewer images are out-of-distribution"),
    "beyond_reference": ("some images are more out-of-distribution than every reference image",) * 2,
    "embedding": ("embeddings differ from the reference",) * 2,
    "probability": ("the probability of {positive} is higher", "the probability of {positive} is lower"),
    "decision": ("{positive} is predicted more often", "{positive} is predicted less often"),
    "uncertain": ("more answers are uncertain", "fewer answers are uncertain"),
}
"""Words for a column that rises, and for one that falls."""

_CAUSES = (
    ({"mean", "contrast", "entropy", "white"}, "exposure, or a new detector?"),
    ({"sharpness"}, "another detector, resizing or compression?"),
    ({"noise"}, "another dose, or a filter that removes noise?"),
    ({"black", "aspect"}, "another crop or border?"),
    ({"width", "height"}, "another source, or resized before upload?"),
    (
        {"outlier_score", "embedding", "out_of_distribution", "beyond_reference"},
        "other views, other devices, or images that are no chest X-rays?",
    ),
    ({"probability", "decision", "uncertain"}, "other patients, or a change that the model reacts to?"),
)


def describe_column(name: str, *, rises: bool, positive_class: str | None) -> str:
    """Describe the difference of one column in words."""
    kind, _, label = name.partition(":")
    return _WORDS[kind][0 if rises else 1].format(positive=label or positive_class or "the predicted class")


def write_summary(verdict: Verdict, top: Sequence[ColumnResult], images: int) -> str:
    """Write a verdict with its strongest columns in one sentence."""
    if verdict is Verdict.TOO_FEW:
        return f"{format_count(images, 'image')}: too few to say anything"
    if verdict is Verdict.OK or not top:
        return f"the {images} images look like the reference"
    words = [column.words for column in top if column.words]
    of_images = [each.removeprefix(_IMAGES_ARE) for each in words if each.startswith(_IMAGES_ARE)]
    parts = [each for each in words if not each.startswith(_IMAGES_ARE)]
    if of_images:
        listed = " and ".join(filter(None, [", ".join(of_images[:-1]), of_images[-1]]))
        parts.insert(0, f"{_IMAGES_ARE}{listed} than the reference")
    cause = next(cause for names, cause in _CAUSES if top[0].name.partition(":")[0] in names)
    return f"{'; '.join(parts)}: {cause}"


def name_site(site: str) -> str:
    """Return the name of a site, or words for images without one and for the further sites."""
    return {NO_SITE: "images without a site", OTHER_SITES: "smaller sites"}.get(site, site)


def add_sites(summary: str, sites: Sequence[SiteCheck]) -> str:
    """Add the sites that differ from the reference to the summary of all images."""
    differ = [each for each in sites if each.verdict in (Verdict.WARNING, Verdict.DRIFT)]
    parts = [f"{name_site(each.site)}: {each.summary}" for each in differ[:TOP]]
    if len(differ) > TOP:
        parts.append(f"and {len(differ) - TOP} more sites")
    return "; ".join([summary, *parts])


def describe_classes(columns: Sequence[ColumnResult]) -> str:
    """Describe the shares of predicted classes in numbers, reference to window, such as `PNEUMONIA 50% to 100%`."""
    return ", ".join(
        f"{each.label} {each.reference.median:.0%} to {each.window.median:.0%}"
        for each in columns
        if each.label and each.reference and each.window
    )


def list_sites(check: DriftCheck) -> list[list[str]]:
    """Return a row of `SITE_HEADS` for each site of a check."""
    numbers = ((f"{each.images}", f"{each.uncertain:.0%}", describe_classes(each.columns)) for each in check.sites)
    return [
        [name_site(each.site), *cells, each.verdict, each.summary]
        for each, cells in zip(check.sites, numbers, strict=True)
    ]
