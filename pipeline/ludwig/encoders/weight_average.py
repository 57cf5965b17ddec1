"""A moving average of a network's weights, which evaluates while the network itself trains."""

import copy

import torch


class WeightAverage(torch.nn.Module):
    """Exponential moving average of a network's parameters and batch-norm statistics (Polyak and Juditsky, 1992).

    The average of step t has the decay min(decay, (1 + t) / (10 + t)), so that it forgets the beginning at first. It
    is a copy of the network whose parameters are buffers: they go into every checkpoint (Ludwig leaves out parameters
    that need no gradient), move with the model, and no optimizer sees them.
    """

    updates: torch.Tensor

    def __init__(self, network: torch.nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.shadow = copy.deepcopy(network)
        for module in self.shadow.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
        self.shadow.eval()
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.count = 0
        self.register_load_state_dict_post_hook(_read_count)  # type: ignore[no-untyped-call]

    def update(self, network: torch.nn.Module) -> None:
        """Move the average towards the network's current weights and statistics."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        state = network.state_dict()
        averages = {name: tensor for name, tensor in self.shadow.state_dict().items() if tensor.is_floating_point()}
        torch._foreach_lerp_(list(averages.values()), [state[name] for name in averages], 1 - decay)
        self.count += 1
        self.updates.fill_(self.count)

    def train(self, mode: bool = True) -> "WeightAverage":
        """Stay in evaluation mode: the average never trains."""
        super().train(mode)
        self.shadow.eval()
        return self

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features of the network with the averaged weights, in evaluation mode."""
        features: torch.Tensor = self.shadow(images)
        return features


def _read_count(average: WeightAverage, _: object) -> None:
    """Restore the count from a checkpoint; as a Python number it spares a GPU a wait at each step."""
    average.count = int(average.updates)
