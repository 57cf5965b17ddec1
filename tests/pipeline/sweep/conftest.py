"""Sweeps without a training: a known surface says what each point of the space reaches."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from pneumo.pipeline.sweep.record import Round, Sweep, Trial, TrialStatus

SynthesiseSweep = Callable[..., Sweep]

SPACE: dict[str, Any] = {
    "trainer.learning_rate": {"space": "loguniform", "lower": 1e-5, "upper": 1e-1},
    "image.encoder.dropout": {"space": "uniform", "lower": 0.0, "upper": 0.5},
    "trainer.batch_size": {"space": "choice", "categories": [16, 32, 64]},
    "image.encoder.norm": {"space": "choice", "categories": ["batch", None]},
    "trainer.use_mixed_precision": {"space": "choice", "categories": [True, False]},
    "image.augmentation": {
        "space": "choice",
        "categories": [
            [],
            [{"type": "random_rotate", "degree": 10}],
            [{"type": "random_rotate", "degree": 10}, {"type": "random_brightness", "min": 0.8, "max": 1.2}],
        ],
    },
}


def surface(parameters: dict[str, Any]) -> float:
    """An AUROC that depends on the learning rate (the best is 1e-3), a little on dropout, on nothing else."""
    rate = math.log10(parameters.get("trainer.learning_rate", 1e-3))
    return 0.97 - 0.05 * (rate + 3) ** 2 - 0.02 * parameters.get("image.encoder.dropout", 0.0)


@pytest.fixture
def synthesise_sweep() -> SynthesiseSweep:
    """A function that makes a sweep: `synthesise_sweep(trials, stopped=..., failed=..., waiting=..., top=..., ...)`.

    The first trials run to their end, then come those that were stopped after two of six epochs, those that failed
    before the first round, and those that never ran; two at a time, 10 s an epoch of which 8 s are training. With
    `top` and `seeds` the best ones are repeated with noise `noise`. Values are those of `surface` at the last epoch,
    turned into 1 - value if the goal is to minimise. Further arguments replace fields of the sweep.
    """

    def make(
        trials: int = 24,
        *,
        stopped: int = 0,
        failed: int = 0,
        waiting: int = 0,
        top: int = 0,
        seeds: int = 1,
        noise: float = 0.002,
        seed: int = 0,
        space: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Sweep:
        random = np.random.default_rng(seed)
        epochs = 6
        goal = fields.get("goal", "maximize")
        made: list[Trial] = []
        free = [0.0, 0.0]

        def add(parameters: dict[str, Any], number: int, ends: TrialStatus, repeats: str | None, luck: float) -> None:
            trial = Trial(name=f"t{len(made) + 1:02d}", parameters=parameters, seed=number, repeats=repeats)
            made.append(trial)
            if ends == TrialStatus.WAITING:
                return
            slot = int(np.argmin(free))
            trial.started, trial.status = free[slot], ends
            done = {TrialStatus.DONE: epochs, TrialStatus.STOPPED: 2}.get(ends, 0)
            final = surface(parameters) + luck
            for epoch in range(1, done + 1):
                value = final - 0.2 * math.exp(-epoch) + 0.2 * math.exp(-epochs)
                value = value if goal == "maximize" else 1 - value
                passed = 10.0 * epoch
                trial.rounds.append(
                    Round(epoch=epoch, step=10 * epoch, value=value, seconds=passed, at=free[slot] + passed)
                )
            trial.seconds, trial.training = 10.0 * done + 1, 8.0 * done
            free[slot] += trial.seconds
            if ends == TrialStatus.FAILED:
                trial.error = "out of memory: 3.2 GiB asked for"
            elif done:
                trial.run = f"runs/{trial.name}"

        plan = [TrialStatus.DONE] * trials + [TrialStatus.STOPPED] * stopped
        plan += [TrialStatus.FAILED] * failed + [TrialStatus.WAITING] * waiting
        for ends in plan:
            add(_draw(random, SPACE if space is None else space), 42, ends, None, 0.0)
        sweep = Sweep(
            **{
                "name": "20260101T000000Z-synthetic-0001",
                "command": ["pneumo", "sweep", "synthetic.yaml"],
                "config": "synthetic",
                "data": "data",
                "data_fingerprint": "0123456789abcdef",
                "metric": "roc_auc",
                "goal": goal,
                "space": SPACE if space is None else space,
                "search": "random",
                "scheduler": "fifo",
                "wanted": len(plan),
                "epochs": epochs,
                "seed": 42,
                "seeds": seeds,
                "top": top,
                "cpus": 1.0,
                "gpus": 0.0,
                "concurrency": 2,
                "started": datetime(2026, 1, 1, tzinfo=UTC),
                "status": "done",
                **fields,
            }
        )
        for first in _best(made, goal)[:top]:
            for extra in range(1, seeds):
                luck = float(random.normal(0, noise))
                add(dict(first.parameters), 42 + extra, TrialStatus.DONE, first.name, luck)
        sweep.trials = made
        sweep.seconds = max(free)
        best = _best(made, goal)
        sweep.winner = best[0].name if best else None
        return sweep

    return make


def _best(trials: list[Trial], goal: Any) -> list[Trial]:
    known = [(trial.value(goal), trial) for trial in trials]
    sign = -1 if goal == "maximize" else 1
    return [trial for _, trial in sorted(((v, t) for v, t in known if v is not None), key=lambda pair: sign * pair[0])]


def _draw(random: np.random.Generator, space: dict[str, Any]) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for name, options in space.items():
        values = options.get("categories", options.get("values"))
        if values is not None:
            drawn[name] = values[int(random.integers(len(values)))]
        elif options["space"] == "loguniform":
            drawn[name] = float(np.exp(random.uniform(np.log(options["lower"]), np.log(options["upper"]))))
        else:
            drawn[name] = float(random.uniform(options["lower"], options["upper"]))
    return drawn
