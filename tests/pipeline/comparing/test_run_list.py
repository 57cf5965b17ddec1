from datetime import UTC, datetime

import pytest

from pneumo.pipeline.comparing.run_list import find_best_run
from pneumo.pipeline.evaluation import evaluate_run
from pneumo.pipeline.runs.run import Status
from pneumo.serving.contracts.errors import InputError
from tests.pipeline.conftest import SynthesiseRun

pytestmark = pytest.mark.usefixtures("no_pages")


def test_the_best_run_has_the_highest_validation_auroc(synthesise_run: SynthesiseRun) -> None:
    runs = [synthesise_run(seed=3, shift=shift) for shift in (0.5, 2.0, 1.0)]
    for run in runs:
        evaluate_run(run, resamples=20)
    assert find_best_run(runs) == runs[1]


def test_runs_on_other_data_and_unfinished_ones_do_not_take_part(synthesise_run: SynthesiseRun) -> None:
    newest = {"started": datetime(2026, 2, 1, tzinfo=UTC)}
    own = synthesise_run(seed=1, shift=0.5, **newest)
    other = synthesise_run(seed=2, shift=3.0)
    stopped = synthesise_run(seed=1, shift=3.0, status=Status.INTERRUPTED)
    for run in (own, other, stopped):
        evaluate_run(run, resamples=20)
    assert find_best_run([own, other, stopped]) == own
    with pytest.raises(InputError, match="no run is finished"):
        find_best_run([stopped])
