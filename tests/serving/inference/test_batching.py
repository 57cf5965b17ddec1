import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pneumo.serving.inference.batching import WAITING, Answer, Batcher
from pneumo.serving.model.bundle import Bundle
from pneumo.serving.model.predictor import BATCH, Predictor
from tests.support.waiting import until


class Slow:
    """A predictor whose network runs as long as the test wants, and that remembers the batches it ran."""

    def __init__(self, predictor: Predictor) -> None:
        self.bundle = predictor.bundle
        self.interpret_outputs = predictor.interpret_outputs
        self.prepare = predictor.prepare
        self.batches: list[int] = []
        self.go = threading.Event()
        self.broken = False
        self._run = predictor.run

    def run(self, batch):
        self.batches.append(len(batch))
        self.go.wait(10)
        if self.broken:
            raise RuntimeError("broken")
        return self._run(batch)


@pytest.fixture
def slow(bundle: Bundle) -> Slow:
    return Slow(Predictor(bundle, threads=1))


@pytest.fixture
def batcher(slow: Slow) -> Iterator[Batcher]:
    predictor: Any = slow
    made = Batcher(predictor)
    yield made
    slow.go.set()
    made.close()


def images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 1, (1, 28, 28)).astype(np.float32) for _ in range(count)]


def test_one_image_goes_through_at_once_and_those_that_wait_meanwhile_go_together(batcher, slow):
    async def ask():
        answers = [Answer() for _ in range(6)]
        inputs = images(6)
        batcher.put(inputs[0], answers[0])
        await asyncio.to_thread(until, lambda: slow.batches == [1])
        for image, answer in zip(inputs[1:], answers[1:], strict=True):
            batcher.put(image, answer)
        slow.go.set()
        return inputs, await asyncio.gather(*(answer.wait() for answer in answers))

    inputs, seen = asyncio.run(ask())
    assert slow.batches == [1, 5]
    assert [each.batch for each in seen] == [1, 5, 5, 5, 5, 5]
    predictor = Predictor(slow.bundle, threads=1)
    for image, each in zip(inputs, seen, strict=True):
        (alone,) = predictor.predict([image])
        assert each.prediction.probability == pytest.approx(alone.probability, abs=1e-6)
        assert each.embedding == pytest.approx(predictor.run(image[None]).embedding[0], abs=1e-4)


def test_no_batch_is_larger_than_the_largest(batcher, slow):
    async def ask():
        answers = [Answer() for _ in range(2 * BATCH + 3)]
        for image, answer in zip(images(len(answers)), answers, strict=True):
            batcher.put(image, answer)
        slow.go.set()
        return await asyncio.gather(*(answer.wait() for answer in answers))

    asyncio.run(ask())
    assert max(slow.batches) <= BATCH
    assert sum(slow.batches) == 2 * BATCH + 3


def test_an_image_that_nobody_waits_for_any_more_is_not_run(batcher, slow):
    async def ask():
        first, left, last = Answer(), Answer(), Answer()
        a, b, c = images(3)
        batcher.put(a, first)
        await asyncio.to_thread(until, lambda: slow.batches == [1])
        batcher.put(b, left)
        waits = asyncio.create_task(left.wait())
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.sleep(0)
        batcher.put(c, last)
        slow.go.set()
        await first.wait()
        await last.wait()

    asyncio.run(ask())
    assert slow.batches == [1, 1]


def test_a_network_that_breaks_fails_its_batch_and_goes_on(batcher, slow):
    async def ask():
        slow.broken = True
        slow.go.set()
        answer = Answer()
        batcher.put(images(1)[0], answer)
        with pytest.raises(RuntimeError, match="broken"):
            await answer.wait()
        slow.broken = False
        answer = Answer()
        batcher.put(images(1)[0], answer)
        assert (await answer.wait()).batch == 1

    asyncio.run(ask())


def test_what_cannot_wait_is_told_so_and_what_can_is_bounded(batcher, slow):
    async def ask():
        batcher.put(images(1)[0], Answer())
        await asyncio.to_thread(until, lambda: slow.batches == [1])
        for image in images(WAITING):
            assert batcher.put(image, Answer(), wait=False)
        assert not batcher.put(images(1)[0], Answer(), wait=False)
        assert batcher._waiting.qsize() == WAITING

    asyncio.run(ask())


def test_closing_answers_what_waits_first(slow):
    predictor: Any = slow
    made = Batcher(predictor)

    async def ask():
        answers = [Answer() for _ in range(3)]
        for image, answer in zip(images(3), answers, strict=True):
            made.put(image, answer)
        slow.go.set()
        await asyncio.to_thread(made.close)
        return await asyncio.gather(*(answer.wait() for answer in answers))

    assert len(asyncio.run(ask())) == 3


def test_what_comes_undecoded_is_decoded_by_the_network_s_thread_and_goes_together(batcher, slow):
    image, decoders = images(1)[0], []

    def decode() -> np.ndarray:
        decoders.append(threading.current_thread().name)
        return image

    async def ask():
        answers = [Answer() for _ in range(WAITING + 5)]  # more than may wait decoded
        batcher.put_undecoded(decode, answers[0])
        await asyncio.to_thread(until, lambda: slow.batches == [1])
        for answer in answers[1:]:
            batcher.put_undecoded(decode, answer)
        assert len(decoders) == 1
        slow.go.set()
        return await asyncio.gather(*(answer.wait() for answer in answers))

    seen = asyncio.run(ask())
    assert {each.prediction.probability for each in seen[1:9]} == {seen[1].prediction.probability}
    assert slow.batches[:2] == [1, BATCH]
    assert set(decoders) == {"network"}


def test_what_cannot_be_decoded_fails_alone(batcher, slow):
    def broken() -> np.ndarray:
        raise ValueError("no image")

    async def ask():
        slow.go.set()
        good, bad, other = Answer(), Answer(), Answer()
        batcher.put_undecoded(lambda: images(1)[0], good)
        batcher.put_undecoded(broken, bad)
        batcher.put(images(1)[0], other)
        with pytest.raises(ValueError, match="no image"):
            await bad.wait()
        return await good.wait(), await other.wait()

    good, other = asyncio.run(ask())
    assert good.prediction.probability == pytest.approx(other.prediction.probability, abs=1e-6)


def test_places_of_decoded_images_are_free_again_once_they_were_taken(batcher, slow):
    async def ask():
        slow.go.set()
        for _ in range(3):
            answers = [Answer() for _ in range(WAITING)]
            for answer in answers:
                assert batcher.put(images(1)[0], answer, wait=False)
            await asyncio.gather(*(answer.wait() for answer in answers))

    asyncio.run(ask())
