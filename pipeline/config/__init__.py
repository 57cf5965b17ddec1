"""Load, override and validate a Ludwig config file, more strictly than Ludwig does and without importing it.

Ludwig's schema is in `ludwig_schema.json`, written by `python -m pneumo.pipeline.ludwig.schema_extract`.
"""

from pneumo.pipeline.config.document import Document
from pneumo.pipeline.config.experiment import Experiment, build_experiment, load_config

__all__ = ["Document", "Experiment", "build_experiment", "load_config"]
