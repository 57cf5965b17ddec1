from types import ModuleType
from typing import Any

import pytest

MEMBER = {"type": "backbone", "network": "test_resnet", "dropout": 0.0}


@pytest.fixture(autouse=True)
def seeded(ludwig: ModuleType) -> None:
    import torch

    torch.manual_seed(4)


def make(*members: dict[str, Any], copies: int = 1, **shared: Any) -> Any:
    from pneumo.pipeline.ludwig.encoders.ensemble import Ensemble, EnsembleConfig

    shape = {"height": 64, "width": 64, "num_channels": 1} | shared
    return Ensemble(EnsembleConfig(members=list(members) or [MEMBER], copies=copies, **shape))


def images(count: int, size: int = 64) -> Any:
    import torch

    return torch.rand(count, 1, size, size)


def features(encoder: Any, given: Any) -> Any:
    import torch

    with torch.no_grad():
        return encoder(given)["encoder_output"]


def used_slices(encoder: Any, given: Any) -> list[list[int]]:
    """For each image the members whose slice is not zero."""
    found = features(encoder, given)
    width = found.shape[1] // len(encoder.members)
    return [row.view(-1, width).abs().sum(dim=1).nonzero().flatten().tolist() for row in found]


def test_members_are_the_stated_ones_times_copies_each_with_weights_of_its_own() -> None:
    import torch

    encoder = make(MEMBER, MEMBER | {"size": 32, "views": 2}, copies=2)

    assert [member.config.size for member in encoder.members] == [None, None, 32, 32]
    assert encoder.output_shape == torch.Size([4 * 96])
    assert encoder.input_shape == torch.Size([1, 64, 64])
    stems = [next(member.backbone.parameters()) for member in encoder.members]
    assert not torch.equal(stems[0], stems[1])


def test_the_logit_in_evaluation_is_the_mean_of_the_members_logits() -> None:
    import torch

    encoder, given = make(MEMBER, MEMBER | {"network": "test_efficientnet"}, copies=2).eval(), images(5)
    head = torch.nn.Linear(encoder.output_shape[0], 1)

    logits = []
    start = 0
    for member in encoder.members:
        width = member.output_shape[0]
        alone = torch.nn.Linear(width, 1)
        with torch.no_grad():
            alone.weight.copy_(head.weight[:, start : start + width])
            alone.bias.copy_(head.bias)
            logits.append(alone(features(member, given)))
        start += width

    torch.testing.assert_close(head(features(encoder, given)), torch.stack(logits).mean(dim=0))


def test_in_training_each_image_goes_through_one_member_and_the_head_sees_that_one_alone() -> None:
    import torch

    encoder, given = make(MEMBER | {"batch_norm": "frozen"}, copies=3).train(), images(10)

    found = features(encoder, given)

    assert used_slices(encoder, given) == [[0]] * 3 + [[1]] * 3 + [[2]] * 4
    torch.testing.assert_close(found[3:6, 96:192], features(encoder.members[1], given[3:6]))


def test_one_members_images_move_no_other_member() -> None:
    encoder = make(copies=2).train()

    encoder(images(4))["encoder_output"][:2].square().sum().backward()

    first, second = ([parameter.grad for parameter in member.parameters()] for member in encoder.members)
    assert any(gradient is not None and gradient.abs().sum() > 0 for gradient in first)
    assert all(gradient is None or gradient.abs().sum() == 0 for gradient in second)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_small_batches_train_even_where_one_image_has_no_variance(count: int) -> None:
    import torch

    encoder = make(MEMBER, copies=3, height=8, width=8).train()
    before = [member.backbone.bn1.running_mean.clone() for member in encoder.members]

    used = used_slices(encoder, images(count, size=8))

    assert all(len(members) == 1 for members in used)
    assert len({members[0] for members in used}) == min(count, 3)
    assert all(module.training for module in encoder.modules())
    moved = [not torch.equal(m.backbone.bn1.running_mean, old) for m, old in zip(encoder.members, before, strict=True)]
    assert sum(moved) == (1 if count == 4 else 0)  # statistics of a single image are none


def test_dropout_and_averages_belong_to_each_member() -> None:
    encoder = make(MEMBER | {"dropout": 0.5, "weight_average": 0.9}, copies=2).train()

    features(encoder, images(4))

    assert [member.average.count for member in encoder.members] == [1, 1]
    assert [member.dropout.p for member in encoder.members] == [0.5, 0.5]


def test_members_start_from_the_same_pretrained_weights(ludwig: ModuleType) -> None:
    import torch

    encoder = make({"type": "efficientnet_lite"}, copies=2)

    first, second = (member.backbone.conv_head.weight for member in encoder.members)
    assert torch.equal(first, second)
    assert first is not second


def test_a_saved_config_reads_as_the_same_members() -> None:
    from pneumo.pipeline.ludwig.encoders.ensemble import EnsembleConfig

    config = EnsembleConfig(members=[MEMBER, {"type": "efficientnet_lite", "size": 96}], copies=2)

    again: Any = EnsembleConfig.from_dict(config.to_dict())

    assert again.to_dict() == config.to_dict()
    assert again.members[1].size == 96


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "must be a list of encoders"),
        (3, "must be a list of encoders"),
        ([{"type": "stacked_cnn"}], "choose from"),
        ([{"type": "ensemble"}], "choose from"),
        ([MEMBER | {"dropout": 3}], "dropout"),
    ],
)
def test_ludwig_refuses_members_that_are_none(members: Any, message: str) -> None:
    from pneumo.pipeline.ludwig.encoders.ensemble import EnsembleConfig

    with pytest.raises(ValueError, match=message):
        EnsembleConfig(members=members)
