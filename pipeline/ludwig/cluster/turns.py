"""Which images of an evaluation a worker sees."""

from collections.abc import Iterator


class Turn:
    """Positions in the batches of one worker: every `workers`-th batch, from its own rank on."""

    def __init__(self, total: int, size: int, rank: int, workers: int) -> None:
        starts = range(rank * size, total, workers * size)
        self.positions = [position for start in starts for position in range(start, min(start + size, total))]

    def __iter__(self) -> Iterator[int]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)

    def set_epoch(self, epoch: int) -> None:
        """Nothing is shuffled."""
