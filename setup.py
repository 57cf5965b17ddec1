"""Packages of the distribution, mapped folder by folder: an archive without symbolic links builds all of them."""

import tempfile
from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = {
    "pneumo": "pneumo",
    "pneumo.pipeline": "pipeline",
    "pneumo.serving": "serving",
    "pneumo.pipeline.project.starters": "ludwig_configs",
}

if Path("docs").is_dir():  # images are built without it
    FOLDERS["pneumo.pipeline.project.pages"] = "docs"

BUILD = tempfile.TemporaryDirectory(prefix="pneumo-build-")  # modules left in ./build would get into the next wheel

setup(
    options={"build": {"build_base": BUILD.name}},
    package_dir=FOLDERS,
    packages=[*FOLDERS, *(f"pneumo.{name}" for name in find_packages(include=["pipeline.*", "serving.*"]))],
    include_package_data=False,  # only what is listed here, whatever an old pneumo.egg-info lists
    package_data={
        "pneumo": ["py.typed"],
        "pneumo.pipeline": ["**/*.json", "**/*.html", "**/*.css", "**/*.js", "**/*.txt"],
        "pneumo.serving": ["**/*.html", "**/*.css", "**/*.js", "**/*.png", "**/*.svg"],
        "pneumo.pipeline.project.starters": ["*.yaml", "*.json"],
        "pneumo.pipeline.project.pages": ["**/*.md", "**/*.png", "**/*.svg", "**/*.webp"],
    },
)
