"""Configs of the shapes that Ludwig's documentation and examples have for one image and one label."""

_OLD = """
input_features:
  - name: image_path
    type: image
    preprocessing: {num_processes: 2}
    encoder: stacked_cnn
    conv_layers:
      - {num_filters: 8, filter_size: 3, pool_size: 2, pool_stride: 2}
      - {num_filters: 16, filter_size: 3, pool_size: 2, pool_stride: 2, dropout: 0.3}
    fc_layers:
      - {fc_size: 16, dropout: 0.3}
output_features:
  - {name: label, type: category}
training: {epochs: 1}
"""
_PRETRAINED = """
model_type: ecd
input_features:
  - name: image_path
    type: image
    encoder: {{type: {kind}, use_pretrained: {pretrained}, trainable: {trainable}}}
output_features:
  - {{name: label, type: category}}
trainer: {{epochs: 1, learning_rate: 0.001}}
"""
_OPEN_SET = """
model_type: ecd
input_features:
  - name: image_path
    type: image
    encoder:
      type: stacked_cnn
      conv_layers: [{{num_filters: 8, filter_size: 3, pool_size: 2, pool_stride: 2}}]
      fc_layers: [{{output_size: 16, dropout: 0.2}}]
output_features:
  - {{name: label, type: category, loss: {{type: {loss}}}}}
trainer: {{epochs: 1, learning_rate: 0.001, batch_size: 16}}
preprocessing: {{split: {{type: random, probabilities: [0.7, 0.1, 0.2]}}}}
"""
_WEIGHTS = {"pretrained": "true", "trainable": "false"}
IMAGE_EXAMPLES = {
    "mnist": _OLD,
    "clip": _PRETRAINED.format(kind="clip", **_WEIGHTS),
    "dinov2, linear probe": _PRETRAINED.format(kind="dinov2", **_WEIGHTS),
    "dinov2, fine-tuned": _PRETRAINED.format(kind="dinov2", pretrained="true", trainable="true"),
    "siglip": _PRETRAINED.format(kind="siglip", **_WEIGHTS),
    "stacked_cnn": _PRETRAINED.format(kind="stacked_cnn", pretrained="false", trainable="true"),
    "open set, baseline": _OPEN_SET.format(loss="softmax_cross_entropy"),
    "open set, entropic": _OPEN_SET.format(loss="entropic_open_set, background_class: 1"),
    "open set, objectosphere": _OPEN_SET.format(loss="objectosphere, background_class: 1, xi: 10.0, zeta: 0.1"),
}
"""The shapes of the nine image examples in Ludwig's repository."""
TRAINABLE = {
    **{name: IMAGE_EXAMPLES[name] for name in ("mnist", "stacked_cnn", "open set, baseline")},
    "torchvision": """
input_features:
  - {name: film, type: image, encoder: {type: resnet, model_variant: 18, use_pretrained: false}}
output_features:
  - {name: finding, type: binary, calibration: true}
defaults: {image: {preprocessing: {height: 32, num_channels: 3}}}
trainer: {epochs: 1, learning_rate_scheduler: {decay: cosine}}
backend: local
""",
}
"""Configs that train in seconds, without weights from elsewhere."""
