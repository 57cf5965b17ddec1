import math
from types import ModuleType
from typing import Any

import pytest

NAME = "smoothed_binary_cross_entropy"


def make(ludwig: ModuleType, **options: Any) -> Any:
    """Make the loss as Ludwig does."""
    from ludwig.modules.loss_modules import create_loss
    from ludwig.schema.features.loss.loss import get_loss_cls

    return create_loss(get_loss_cls("binary", NAME)(**options))


def test_it_is_the_cross_entropy_against_smoothed_labels(ludwig: ModuleType) -> None:
    import torch

    logits, labels = torch.tensor([2.0, -1.0]), torch.tensor([1.0, 0.0])

    loss = make(ludwig, smoothing=0.2)(logits, labels)

    p, q = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    first = -0.9 * math.log(p) - 0.1 * math.log(1 - p)
    second = -0.1 * math.log(q) - 0.9 * math.log(1 - q)
    assert float(loss) == pytest.approx((first + second) / 2)


def test_its_best_logit_is_finite(ludwig: ModuleType) -> None:
    import torch

    loss = make(ludwig, smoothing=0.1)
    values = {logit: float(loss(torch.tensor([logit]), torch.tensor([True]))) for logit in (1.0, 2.944, 6.0)}

    assert min(values, key=lambda logit: values[logit]) == 2.944  # the logit of 0.95


def test_without_smoothing_it_is_ludwigs_loss_weights_included(ludwig: ModuleType) -> None:
    import torch
    from ludwig.modules.loss_modules import create_loss
    from ludwig.schema.features.loss.loss import BWCEWLossConfig

    logits, labels = torch.randn(20), torch.arange(20) % 2

    for weight in (None, 3.0):
        ours = make(ludwig, smoothing=0, positive_class_weight=weight)(logits, labels)
        theirs = create_loss(BWCEWLossConfig(positive_class_weight=weight))(logits, labels)
        torch.testing.assert_close(ours, theirs)


def test_a_checkpoint_holds_nothing_of_it(ludwig: ModuleType) -> None:
    assert len(make(ludwig, positive_class_weight=2.0).state_dict()) == 0


def test_ludwigs_robust_lambda_of_one_switches_its_loss_off(ludwig: ModuleType) -> None:
    """Show why a rule refuses it: it takes whole numbers only."""
    import torch
    from ludwig.modules.loss_modules import create_loss
    from ludwig.schema.features.loss.loss import BWCEWLossConfig

    logits = torch.randn(4, requires_grad=True)
    create_loss(BWCEWLossConfig(robust_lambda=1))(logits, torch.ones(4)).backward()

    assert torch.equal(logits.grad, torch.zeros(4))
    with pytest.raises(ValueError, match="robust_lambda"):
        BWCEWLossConfig(robust_lambda=0.1)
