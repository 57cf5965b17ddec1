"""Recalibration of a bundle for another place: the same network with decisions fitted to images of that site."""

from pneumo.pipeline.release.recalibration.recalibrate import Recalibrated, recalibrate_bundle

__all__ = ["Recalibrated", "recalibrate_bundle"]
