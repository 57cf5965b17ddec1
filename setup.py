"""Packages of the distribution, mapped folder by folder: an archive without symbolic links builds all of them."""

from setuptools import find_packages, setup

FOLDERS = {
    "pneumo": "pneumo",
    "pneumo.pipeline": "pipeline",
    "pneumo.serving": "serving",
    "pneumo.pipeline.project.starters": "ludwig_configs",
}

setup(
    package_dir=FOLDERS,
    packages=[*FOLDERS, *(f"pneumo.{name}" for name in find_packages(include=["pipeline.*", "serving.*"]))],
    package_data={
        "pneumo": ["py.typed"],
        "pneumo.pipeline": ["**/*.json", "**/*.html", "**/*.css", "**/*.js"],
        "pneumo.serving": ["**/*.html", "**/*.css", "**/*.js", "**/*.png", "**/*.svg"],
        "pneumo.pipeline.project.starters": ["*.yaml"],
    },
)
