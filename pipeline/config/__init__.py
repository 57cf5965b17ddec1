"""Load, override and validate a config: a Ludwig config file, checked more strictly than Ludwig does.

Everything here works without importing Ludwig; its schema lies beside this module as `ludwig_schema.json`
(made by `python -m pneumo.pipeline.ludwig.schema_extract`).
"""

from pneumo.pipeline.config.document import Document
from pneumo.pipeline.config.experiment import Experiment, build_experiment, load_config

__all__ = ["Document", "Experiment", "build_experiment", "load_config"]
