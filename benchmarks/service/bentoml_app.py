"""A bundle behind BentoML, with the same preparation, network and judgement as pneumo's own service.

For `bentoml serve bentoml_app:Served`; the bundle's folder is in the variable `BUNDLE`.
"""

import os
from pathlib import Path

import bentoml
import numpy as np

from pneumo.serving.contracts.schemas import ImagePrediction
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import BATCH, Predictor


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 1000})
class Served:
    def __init__(self) -> None:
        self.predictor = Predictor(Bundle.open(Path(os.environ["BUNDLE"])), threads=1)

    # A shorter latency makes its dispatcher refuse: with 200 ms nearly all of 100 clients, with 50 ms most of 16.
    @bentoml.api(batchable=True, max_batch_size=BATCH, max_latency_ms=10_000)
    def predict(self, images: list[Path]) -> list[ImagePrediction]:
        inputs = [self.predictor.prepare(image.read_bytes()) for image in images]
        return self.predictor.interpret_outputs(self.predictor.run(np.stack(inputs)), elapsed_ms=0)
