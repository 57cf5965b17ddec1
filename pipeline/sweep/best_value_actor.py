"""A Ray actor shared by the trials of a sweep, in its own module because the actor's process imports this module."""


class BestValue:
    """The best value of all finished trials: only a trial that beats it is predicted and measured."""

    def __init__(self, maximize: bool, best: float | None = None) -> None:
        self.sign = 1 if maximize else -1
        self.best = best

    def beats(self, value: float) -> bool:
        """Return True if a value is better than all before it, and keep it."""
        if self.best is not None and self.sign * value <= self.sign * self.best:
            return False
        self.best = value
        return True
