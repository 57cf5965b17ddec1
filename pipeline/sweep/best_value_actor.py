"""What the trials of a sweep tell each other. A module of its own: an actor's process imports no more than this."""


class BestValue:
    """Ray actor: the best value of all trials that ended, so that only a new best one is predicted and measured."""

    def __init__(self, maximize: bool, best: float | None = None) -> None:
        self.sign = 1 if maximize else -1
        self.best = best

    def beats(self, value: float) -> bool:
        """Whether a value is the best so far; it is remembered."""
        if self.best is not None and self.sign * value <= self.sign * self.best:
            return False
        self.best = value
        return True
