import pytest

from pneumo.serving.drift.samples import Sample
from tests.support.drift_samples import draw


@pytest.fixture(scope="session")
def reference() -> Sample:
    return draw(600, 0)


@pytest.fixture(scope="session")
def drawn():
    return draw
