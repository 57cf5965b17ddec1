from types import ModuleType
from typing import Any

import numpy as np
import pytest

NAMES = ("affine", "intensity", "sharpness", "noise", "erasing", "style")


def make(name: str, **options: Any) -> Any:
    """Make an operation as Ludwig does: from a section of a config, out of its registries."""
    from ludwig.schema.features.augmentation.utils import get_augmentation_cls
    from ludwig.utils.augmentation_utils import get_augmentation_op

    config = get_augmentation_cls("image", f"radiograph_{name}")(**options)
    return get_augmentation_op("image", config.type)(config)


def batch(count: int = 8, channels: int = 1) -> Any:
    """Return smooth random images, uint8 [N, C, 40, 48], with equal channels."""
    import torch

    random = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:48] / 48
    waves = [128 + 90 * np.sin(6 * (x * random.random() + y * random.random()) + k) * y for k in range(count)]
    return torch.from_numpy(np.stack(waves).astype(np.uint8))[:, None].repeat(1, channels, 1, 1)


@pytest.fixture(autouse=True)
def seeded(ludwig: ModuleType) -> None:
    import torch

    torch.manual_seed(1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_shape_dtype_and_range_stay_and_channels_change_alike(name: str, channels: int) -> None:
    import torch

    images = batch(channels=channels)
    before = images.clone()
    operation = make(name, probability=1)

    for given in (images, images.float()):
        changed = operation(given)
        assert changed.shape == given.shape
        assert changed.dtype == given.dtype
        assert changed.min() >= 0
        assert changed.max() <= 255
        assert not torch.equal(changed, given)
        assert torch.equal(changed[:, :1].expand_as(changed), changed)
    assert torch.equal(images, before), "the batch itself was written to"


@pytest.mark.parametrize("name", NAMES)
def test_each_image_is_drawn_for_itself(name: str) -> None:
    images = batch(64)
    changed = make(name, probability=0.5)(images)

    kept = (changed == images).flatten(1).all(dim=1).sum()

    assert 16 <= kept <= 56  # the neutral draws of an operation leave an image as it is, too


@pytest.mark.parametrize("name", NAMES)
def test_equal_images_come_out_different(name: str) -> None:
    import torch

    images = batch(2)[:1].repeat(6, 1, 1, 1)
    images[3:] = 255 - images[3:]  # two looks, so that there is a style to take over

    changed = make(name, probability=1)(images)

    assert len(torch.unique(changed[:3].flatten(1), dim=0)) > 1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same_and_probability_zero_nothing(name: str) -> None:
    import torch

    operation, images = make(name, probability=1), batch()
    torch.manual_seed(5)
    first = operation(images)
    torch.manual_seed(5)

    assert torch.equal(operation(images), first)
    assert torch.equal(make(name, probability=0)(images), images)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, 255])
def test_flat_images_and_batches_of_one_are_finite(name: str, value: int) -> None:
    import torch

    flat = torch.full((1, 1, 9, 7), value, dtype=torch.float32)

    assert torch.isfinite(make(name, probability=1)(flat)).all()


def test_all_operations_work_inside_ludwigs_pipeline(ludwig: ModuleType) -> None:
    import torch
    from ludwig.features.image_feature import ImageAugmentation
    from ludwig.schema.features.augmentation.utils import get_augmentation_cls

    pipeline = ImageAugmentation([get_augmentation_cls("image", f"radiograph_{name}")() for name in NAMES])

    images = batch().float() / 255
    changed = pipeline(images)

    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    assert changed.max() <= 1
    assert len(pipeline.state_dict()) == 0  # nothing of it goes into a checkpoint


def test_ludwigs_way_to_uint8_and_back_moves_no_pixel(ludwig: ModuleType) -> None:
    """It truncates; that is exact only because k / 255 * 255 is."""
    import torch

    levels = torch.arange(256).float() / 255

    assert torch.equal(levels.mul(255.0).type(torch.uint8), torch.arange(256).to(torch.uint8))


def disc(x: float, y: float) -> Any:
    """Draw a white disc of radius 4 on black, x and y from the centre, [1, 1, 41, 41]."""
    import torch

    rows, columns = torch.meshgrid(torch.arange(-20, 21), torch.arange(-20, 21), indexing="ij")
    return (((columns - x) ** 2 + (rows - y) ** 2) <= 16).float()[None, None] * 255


def centre_of(image: Any) -> tuple[float, float]:
    """Return the centre of mass, from the centre of the image."""
    import torch

    weights = image[0, 0] / image.sum()
    offsets = torch.arange(-20, 21)
    return float((weights.sum(0) * offsets).sum()), float((weights.sum(1) * offsets).sum())


STILL = {"rotation": 0, "scale_min": 1, "scale_max": 1, "aspect": 1, "translate": 0, "shear": 0, "flip": 0}


def test_an_affine_map_without_movement_is_the_identity() -> None:
    import torch

    images = batch()

    assert torch.equal(make("affine", probability=1, **STILL)(images), images)


def test_a_mirror_swaps_left_and_right_only() -> None:
    import torch

    images = batch()

    assert torch.equal(make("affine", probability=1, **STILL | {"flip": 1})(images), images.flip(3))


def test_magnification_moves_outwards_by_its_factor() -> None:
    x, y = centre_of(make("affine", probability=1, **STILL | {"scale_min": 1.5, "scale_max": 1.5})(disc(8, -6)))

    assert (x, y) == pytest.approx((12, -9), abs=0.3)


def test_rotation_keeps_the_distance_and_stays_within_its_degrees() -> None:
    angles = []
    for _ in range(40):
        x, y = centre_of(make("affine", probability=1, **STILL | {"rotation": 30})(disc(12, 0)))
        assert np.hypot(x, y) == pytest.approx(12, abs=0.3)
        angles.append(np.degrees(np.arctan2(y, x)))

    assert max(angles) <= 31
    assert min(angles) >= -31
    assert max(angles) - min(angles) > 40


def test_translation_and_aspect_stay_within_their_limits() -> None:
    shifts = [centre_of(make("affine", probability=1, **STILL | {"translate": 0.2})(disc(0, 0))) for _ in range(40)]
    assert np.abs(shifts).max() <= 0.2 * 41 + 0.2
    assert np.abs(shifts).max() > 5

    stretched = [centre_of(make("affine", probability=1, **STILL | {"aspect": 1.44})(disc(10, 10))) for _ in range(40)]
    ratios = [x / y for x, y in stretched]
    assert 1.2 < max(ratios) <= 1.47
    assert 1 / 1.47 <= min(ratios) < 1 / 1.2


def plain(**options: Any) -> dict[str, Any]:
    """Options of `radiograph_intensity` that change nothing, but for those given."""
    neutral: dict[str, Any] = {"gamma_min": 1, "gamma_max": 1, "contrast_min": 1, "contrast_max": 1, "curve": 0}
    return {"probability": 1, "brightness_min": 0, "brightness_max": 0} | neutral | options


def test_tones_do_what_they_say() -> None:
    import torch

    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)

    def after(**options: Any) -> Any:
        return make("intensity", **plain(**options))(images).flatten().int()

    levels = torch.arange(256)
    assert torch.equal(after(), levels)
    assert torch.equal(after(invert=1), 255 - levels)
    assert torch.equal(after(brightness_min=0.2, brightness_max=0.2), (levels + 51).clamp(max=255))
    torch.testing.assert_close(after(gamma_min=2, gamma_max=2), (levels**2 / 255).round().int())
    contrast = ((levels / 255 - 0.5) * 0.5 + 0.5) * 255
    torch.testing.assert_close(after(contrast_min=0.5, contrast_max=0.5), contrast.round().int(), atol=1, rtol=0)


def test_a_tone_curve_rises_from_black_to_white() -> None:
    import torch

    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(50, 1, 1, 1)

    curves = make("intensity", **plain(curve=0.8))(images).flatten(1).int()

    assert (curves.diff(dim=1) >= 0).all()
    assert (curves[:, 0] == 0).all()
    assert (curves[:, -1] == 255).all()
    assert (curves - torch.arange(256)).abs().amax(dim=1).float().mean() > 8


def roughness(images: Any) -> Any:
    """Mean absolute difference of neighbours of each image."""
    return images.float().diff(dim=3).abs().mean(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("options", "sign"),
    [
        ({"blur": 1, "downsample": 0, "unsharp": 0, "sigma_min": 1}, -1),
        ({"blur": 0, "downsample": 1, "unsharp": 0, "resolution": 0.3}, -1),
        ({"blur": 0, "downsample": 0, "unsharp": 1, "sigma_min": 1}, 1),
    ],
)
def test_blur_and_coarseness_smooth_and_a_mask_sharpens(options: dict[str, float], sign: int) -> None:
    import torch

    images = torch.randint(60, 190, (8, 1, 40, 48), dtype=torch.uint8)

    changed = make("sharpness", probability=1, **options)(images)

    assert (sign * (roughness(changed) - roughness(images)) > 0).all()
    torch.testing.assert_close(changed.float().mean(), images.float().mean(), atol=2, rtol=0)


def test_a_blur_is_the_gaussian_of_its_sigma() -> None:
    import torch

    from pneumo.pipeline.ludwig.augmentation.sharpness import gaussian_blur

    images = torch.zeros(2, 1, 41, 41)
    images[:, :, 20, 20] = 1
    sigma = torch.tensor([1.0, 2.0]).view(-1, 1, 1, 1)

    blurred = gaussian_blur(images, sigma)

    spread = (blurred.sum(dim=2)[:, 0] * torch.arange(-20, 21) ** 2).sum(dim=1).sqrt()
    torch.testing.assert_close(spread, torch.tensor([1.0, 2.0]), atol=0.02, rtol=0)
    torch.testing.assert_close(blurred.sum(dim=(1, 2, 3)), torch.ones(2))


def test_noise_has_its_deviation_and_grows_with_the_signal_where_it_says_so() -> None:
    import torch

    images = torch.full((200, 1, 20, 40), 20.0)
    images[..., 20:] = 180

    constant = make("noise", probability=1, gaussian=0.05, poisson=0, bias=0)(images) - images
    growing = make("noise", probability=1, gaussian=0, poisson=0.05, bias=0)(images) - images

    deviations = constant.std(dim=(1, 2, 3)) / 255
    assert deviations.max() <= 0.055
    assert 0.02 < deviations.mean() < 0.03  # uniform from 0 to 0.05
    ratio = growing[..., 20:].std() / growing[..., :20].std()
    assert ratio == pytest.approx(3, rel=0.1)  # the root of 180 / 20


def test_a_field_is_smooth_and_within_its_limit() -> None:
    import torch

    images = torch.full((30, 1, 32, 32), 100.0)

    changed = make("noise", probability=1, gaussian=0, poisson=0, bias=0.2)(images)

    assert (changed - 100).abs().max() <= 20 + 1e-3
    assert (changed - 100).abs().max() > 10
    assert roughness(changed).max() < 3


@pytest.mark.parametrize("fill", ["mean", "noise"])
def test_erased_rectangles_take_the_stated_area_and_fill(fill: str) -> None:
    import torch

    images = torch.where(torch.rand(60, 1, 64, 64) < 0.5, 60.0, 140.0)

    changed = make("erasing", probability=1, area_min=0.1, area_max=0.2, aspect=2, count=1, fill=fill)(images)

    share = (changed != images).float().mean(dim=(1, 2, 3))
    assert share.min() > 0.05
    assert share.max() < 0.22
    filled = changed[changed != images]
    assert filled.mean() == pytest.approx(100, abs=12)
    assert (filled.std() > 30) == (fill == "noise")


def test_a_style_moves_low_amplitudes_towards_the_donor_and_keeps_phases_and_detail() -> None:
    import torch

    torch.manual_seed(0)
    images = torch.rand(2, 1, 32, 32) * 60 + torch.tensor([40.0, 150.0]).view(2, 1, 1, 1)

    changed = make("style", probability=1, strength=1, band=0.1)(images)

    before, after = torch.fft.rfft2(images), torch.fft.rfft2(changed)
    torch.testing.assert_close(after[..., 4:-4, 4:], before[..., 4:-4, 4:], atol=0.05, rtol=0)
    torch.testing.assert_close(after[..., 1, 1].angle(), before[..., 1, 1].angle(), atol=1e-3, rtol=0)
    low, high = images.mean(dim=(1, 2, 3))
    assert (changed.mean(dim=(1, 2, 3)) > low - 0.1).all()
    assert (changed.mean(dim=(1, 2, 3)) < high + 0.1).all()
    assert changed[0].mean() > low + 1


def test_an_image_alone_keeps_its_style() -> None:
    import torch

    images = batch(1)

    assert torch.equal(make("style", probability=1)(images), images)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("affine", {"probability": 1.1}),
        ("affine", {"scale_min": 1.2}),
        ("intensity", {"gamma_max": 0.5}),
        ("sharpness", {"blur": 0.7}),
        ("erasing", {"fill": "cat"}),
    ],
)
def test_ludwig_itself_refuses_what_is_out_of_range(name: str, options: dict[str, Any]) -> None:
    from ludwig.error import ConfigValidationError
    from ludwig.schema.features.augmentation.utils import get_augmentation_cls

    with pytest.raises(ConfigValidationError, match=next(iter(options))):
        get_augmentation_cls("image", f"radiograph_{name}").model_validate({"type": f"radiograph_{name}"} | options)
