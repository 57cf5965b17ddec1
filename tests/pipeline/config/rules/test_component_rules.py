from pathlib import Path

import pytest

from pneumo.pipeline import config
from pneumo.serving.contracts.errors import InputError
from tests.support.paths import ROOT

SMOKE = ROOT / "ludwig_configs" / "smoke.yaml"
TEXT = SMOKE.read_text(encoding="utf-8")
AUGMENTATION = "    augmentation:\n      - {type: radiograph_noise}\n      - {OPTIONS}\n"


def error_of(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        config.load_config(file)
    return str(caught.value).replace(f"{tmp_path}/", "")


def with_augmentation(options: str) -> tuple[str, int]:
    """smoke.yaml with a second augmentation, and its line."""
    head, rest = TEXT.split("output_features:", 1)
    text = head + AUGMENTATION.replace("OPTIONS", options) + "output_features:" + rest
    return text, text[: text.index(options)].count("\n") + 1


def with_encoder(*lines: str) -> tuple[str, int]:
    """smoke.yaml with another encoder, and the line of its first key."""
    head, rest = TEXT.split("    encoder:\n", 1)
    section = "".join(f"      {line}\n" for line in lines)
    return f"{head}    encoder:\n{section}output_features:{rest.split('output_features:', 1)[1]}", head.count("\n") + 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("type: radiograph_afine", "did you mean 'radiograph_affine'?"),
        ("type: radiograph_affine, rotate: 3", "unknown key 'rotate' under input_features.0.augmentation.1; did you"),
        ("type: radiograph_affine, probability: 1.5", "augmentation.1.probability is 1.5; the most is 1"),
        ("type: radiograph_affine, flip: -0.5", "augmentation.1.flip is -0.5; the least is 0"),
        ("type: radiograph_affine, rotation: many", "augmentation.1.rotation must be a number, not 'many'"),
        ("type: radiograph_affine, scale_min: 1.2", "scale_min is 1.2, more than scale_max, 1.1"),
        ("type: radiograph_affine, scale_max: 0.5", "scale_min is 0.9, more than scale_max, 0.5"),
        ("type: radiograph_intensity, gamma_min: 2.0e+0, gamma_max: 1.5", "gamma_min is 2.0, more than gamma_max, 1.5"),
        ("type: radiograph_sharpness, blur: 0.7", "the shares blur, downsample, unsharp add up to more than 1"),
        ("type: radiograph_erasing, fill: black", "augmentation.1.fill is 'black'; choose from mean, noise"),
        ("type: radiograph_erasing, count: 0", "augmentation.1.count is 0; the least is 1"),
        ("type: random_brightness, min: 3.0", "min is 3.0, more than max, 2.0"),
    ],
)
def test_a_wrong_augmentation_is_one_line_with_file_line_and_fix(tmp_path: Path, options: str, message: str) -> None:
    text, line = with_augmentation(options)

    error = error_of(tmp_path, text)

    assert error.startswith(f"mine.yaml:{line}: ")
    assert message in error


@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        (["type: efficientnet_lite", "batch_norm: off"], 1, "batch_norm is False; choose from train, frozen"),
        (["type: efficientnet_lite", "views: 3"], 1, "views is 3; choose from 1, 2"),
        (["type: efficientnet_lite", "weight_average: 1.0"], 1, "weight_average is 1.0; the most is 0.99999"),
        (
            ["type: efficientnet_lite", "trainable: false", "weight_average: 0.99"],
            2,
            "weight_average averages weights, but trainable: false freezes them",
        ),
        (["type: backbone", "cached_views: 4"], 1, "cached_views keeps the features of a frozen network"),
        (["type: ensemble", "members:", "  - {type: backbone, cached_views: 4}"], 2, "unknown key 'cached_views'"),
        (["type: backbone", "library: timmm"], 1, "library is 'timmm'; did you mean 'timm'?"),
        (["type: ensemble", "members: []"], 1, "members is empty"),
        (["type: ensemble", "members: 3"], 1, "members must be a list, not 3"),
        (["type: ensemble", "copies: 0"], 1, "copies is 0; the least is 1"),
        (["type: ensemble", "members:", "  - {}"], 2, "missing key 'type' under input_features.0.encoder.members.0"),
        (["type: ensemble", "members:", "  - {type: stacked_cnn}"], 2, "members.0.type is 'stacked_cnn'; choose from"),
        (["type: ensemble", "members:", "  - {type: efficientnet_lite, droput: 1}"], 2, "did you mean 'dropout'?"),
        (["type: ensemble", "members:", "  - {type: efficientnet_lite, height: 9}"], 2, "unknown key 'height'"),
        (
            ["type: ensemble", "members:", "  - {type: backbone, trainable: false, weight_average: 0.9}"],
            2,
            "input_features.0.encoder.members.0.weight_average averages",
        ),
    ],
)
def test_a_wrong_encoder_is_one_line_with_file_line_and_fix(
    tmp_path: Path, lines: list[str], line: int, message: str
) -> None:
    text, first = with_encoder(*lines)

    error = error_of(tmp_path, text)

    assert any(each.startswith(f"mine.yaml:{first + line}: ") and message in each for each in error.splitlines())


@pytest.mark.parametrize(
    "lines",
    [
        ["type: ensemble", "copies: 3", "members:", "  - {type: efficientnet_lite, pretrained: true, size: 160}"],
        ["type: ensemble", "members: [{type: backbone, network: resnet18}, {type: xrv_densenet, size: 224}]"],
        ["type: backbone", "library: torchvision", "network: densenet121", "weights: cached"],
        ["type: xrv_densenet", "weights: /models/nih.pt", "size: 224"],
    ],
)
def test_the_encoders_pass(tmp_path: Path, lines: list[str]) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(with_encoder(*lines)[0], encoding="utf-8")

    assert config.load_config(file).image == "image"


ENSEMBLE = "input_features.0.encoder={type: ensemble, copies: 2}"
CATEGORY = "output_features=[{name: label, type: category}]"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            [ENSEMBLE, "combiner={type: concat, num_fc_layers: 1}"],
            "combiner.num_fc_layers adds layers over the ensemble",
        ),
        (
            [ENSEMBLE, "output_features.0.decoder={type: regressor, num_fc_layers: 2}"],
            "decoder.num_fc_layers adds layers over the ensemble",
        ),
        ([ENSEMBLE, "trainer.should_shuffle=false"], "the same images in every epoch"),
        (["output_features.0.loss.robust_lambda=1"], "use type: smoothed_binary_cross_entropy with smoothing"),
        (
            ["output_features.0.loss={type: smoothed_binary_cross_entropy, smoothing: 1.5}"],
            "smoothing is 1.5; the most",
        ),
        ([CATEGORY, "output_features.0.loss.class_weights=[1, 2, 3]"], "in order of class frequency"),
        ([CATEGORY, "preprocessing.oversample_minority=0.5"], "works for a binary label only; use output_features.0"),
        (["preprocessing.oversample_minority=0.5", "preprocessing.undersample_majority=0.5"], "exclude each other"),
        (["preprocessing.oversample_minority=2"], "above 0 and at most 1"),
    ],
)
def test_what_ludwig_ignores_or_breaks_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        config.load_config(SMOKE, overrides)

    assert str(caught.value).startswith("-o ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["output_features.0.loss={type: smoothed_binary_cross_entropy, smoothing: 0.1, positive_class_weight: 0.4}"],
        ["output_features.0.loss.positive_class_weight=2.5"],
        ["output_features.0.loss.confidence_penalty=0.1"],
        ["preprocessing.undersample_majority=0.8"],
        ["trainer.model_soup=uniform", "trainer.model_soup_top_k=3"],
        [CATEGORY, "output_features.0.loss.class_weights={A: 1.0, B: 2.0, C: 3.0}"],
    ],
)
def test_what_works_passes(overrides: list[str]) -> None:
    assert config.load_config(SMOKE, overrides).label == "label"
