"""Upgrade configs of older Ludwig versions as Ludwig 0.17.10 does, for one image and one label, without importing it.

The steps are those of `ludwig.utils.backward_compatibility` and `ludwig.schema.model_types.utils.merge_with_defaults`;
a test compares the results.
"""

import functools
import re
from collections.abc import Callable, Iterator

from pneumo.pipeline.config.draft import Draft
from pneumo.pipeline.config.problems import KeyPath
from pneumo.pipeline.config.schema import Schema, read_branches, read_ludwig_schema
from pneumo.pipeline.config.suggestions import find_near

FEATURE_TYPES = (
    *("anomaly", "audio", "bag", "binary", "category", "category_distribution", "date", "h3", "image", "number"),
    *("numerical", "sequence", "set", "text", "timeseries", "vector"),
)
"""Ludwig's types of features, with the old name of `number`."""
_FEATURES = ("input_features", "output_features")
_FC_KEYS = (
    *("fc_layers", "output_size", "use_bias", "weights_initializer", "bias_initializer", "norm", "norm_params"),
    *("activation", "dropout"),
)
_NEW_NAMES = dict(
    re.findall(
        r"(\w+):(\w+)",
        "num_filters:out_channels filter_size:kernel_size pool_size:pool_kernel_size pool_strides:pool_stride "
        "strides:stride dilation_rate:dilation batch_norm:norm fc_size:output_size dropout_rate:dropout",
    )
)
"""Keys of layers in old versions, which Ludwig ignores, and their names today."""
_BIASES = {"bias": "use_bias", "conv_bias": "conv_use_bias", "default_bias": "default_use_bias"}
_SCHEDULER_KEYS = {
    **{f"reduce_learning_rate_on_plateau{end}": f"reduce_on_plateau{end}" for end in ("", "_patience", "_rate")},
    **{f"reduce_learning_rate_eval_{end}": f"reduce_eval_{end}" for end in ("metric", "split")},
    **{key: key for key in ("decay", "decay_steps", "decay_rate", "staircase")},
    "learning_rate_warmup_epochs": "warmup_evaluations",
}
_NOTES = ("author", "comment", "date", "description", "name", "notes", "tags", "title", "version")
"""Keys at the top level that are notes of people."""


def upgrade(draft: Draft) -> None:
    """Bring a config to the form of Ludwig 0.17.10, with `defaults` merged into the features."""
    version = re.match(r"(\d+)\.(\d+)(\.\d*[1-9])?", str(draft.get("ludwig_version")))
    since = (int(version[1]), int(version[2]), bool(version[3])) if version else (0, 0, False)
    for minor, step in _STEPS:
        if since <= (0, minor, False):  # 0.6.1 is newer than 0.6, the version that brought a step
            step(draft)
    if isinstance(draft.get("backend"), str):
        draft.put("backend", {"type": draft.get("backend")})
    _merge_defaults(draft)


def _rename_training(draft: Draft) -> None:
    if "training" in draft.keys(()):
        draft.drop("trainer")
        draft.move(("training",), ("trainer",))


def _move_preprocessing_of_types(draft: Draft) -> None:
    """Move `preprocessing.image` to `defaults.image.preprocessing`, over what is there."""
    for kind in [kind for kind in draft.keys("preprocessing") if kind in FEATURE_TYPES]:
        source: KeyPath = ("preprocessing", kind)
        inner = (*source, "preprocessing") if "preprocessing" in draft.keys(source) else source
        for key in draft.keys(inner):
            draft.drop(("defaults", kind, "preprocessing", key))
            draft.move((*inner, key), ("defaults", kind, "preprocessing", key))
        draft.drop(source)
    if draft.get("preprocessing") == {}:
        draft.drop("preprocessing")


def _upgrade_hyperopt(draft: Draft) -> None:
    section, executor, search = ("hyperopt",), ("hyperopt", "executor"), ("hyperopt", "search_alg")
    if not draft.keys(section):
        return
    for name in draft.keys((*section, "parameters")):
        if name.startswith("training."):
            draft.move((*section, "parameters", name), (*section, "parameters", name.replace("training", "trainer", 1)))
    if "executor" not in draft.keys(section):
        draft.put(executor, {"type": "ray"})
    if draft.get((*executor, "type"), "ray") != "ray":
        draft.put((*executor, "type"), "ray", "Ludwig has no other executor")
    for holder in (executor, (*section, "sampler")):
        draft.move((*holder, "search_alg"), search)
    for key in ("num_samples", "scheduler"):
        draft.move((*section, "sampler", key), (*executor, key))
    if "sampler" in draft.keys(section) and draft.get((*executor, "scheduler")) == {}:
        draft.drop((*executor, "scheduler"))
    draft.drop((*section, "sampler"))
    kind = draft.get(search, "variant_generator")
    if isinstance(kind, str):
        draft.put(search, {"type": kind})


def _rename_biases(draft: Draft) -> None:
    def rename(path: KeyPath) -> None:
        value = draft.get(path)
        for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            rename((*path, key))
            if key in _BIASES:
                draft.move((*path, key), (*path, _BIASES[key]))

    for path in draft.list_mappings(*_FEATURES):
        rename(path)


def _upgrade_split(draft: Draft) -> None:
    section = ("preprocessing",)
    old = {key: draft.get((*section, key)) for key in ("split_probabilities", "stratify", "force_split")}
    split = {"probabilities": old["split_probabilities"], "type": "random", "column": old["stratify"]}
    if old["stratify"] is not None:
        split["type"] = "stratify"
    elif old["force_split"] is None:
        split["type"] = None
    for key in old:
        draft.drop((*section, key))
    if kept := {key: value for key, value in split.items() if value is not None}:
        draft.put((*section, "split"), kept)


def _upgrade_values(draft: Draft) -> None:
    """Replace single values that had another form."""
    if draft.get("trainer.eval_batch_size", 1) == 0:
        draft.put("trainer.eval_batch_size", None)
    for path in (*draft.list_mappings(*_FEATURES), *(("defaults", kind) for kind in draft.keys("defaults"))):
        strategy = (*path, "preprocessing", "missing_value_strategy")
        if draft.get(strategy) in ("backfill", "pad"):
            draft.put(strategy, "bfill" if draft.get(strategy) == "backfill" else "ffill")
        weights = (*path, "loss", "class_weights")
        if not isinstance(draft.get(weights), list | dict | None):
            draft.drop(weights, "is ignored by Ludwig: write a mapping from class to weight")


def _nest_options(draft: Draft) -> None:
    """Move options of a component from the feature into its section `encoder` or `decoder`, which may be a name."""
    draft.drop("trainer.type")
    for path in draft.list_mappings(*_FEATURES):
        section, part = str(path[0]), "encoder" if path[0] == "input_features" else "decoder"
        if isinstance(draft.get((*path, part)), str):
            draft.put((*path, part), {"type": draft.get((*path, part))})
        own, _ = _split_options(_feature_schema(section), draft.get((*path, "type")))
        own |= dict.fromkeys(("active", "proc_column"))
        if part not in own or not isinstance(draft.get((*path, part), {}), dict):
            continue
        for key in [key for key in draft.keys(path) if key not in own]:
            if key not in _list_options(section, part) and find_near(key, own):
                continue  # it is misspelt
            if part == "decoder" and key in _FC_KEYS:
                draft.copy((*path, key), (*path, part, f"fc_{key}"))
            draft.drop((*path, part, key))
            draft.move((*path, key), (*path, part, key))
    draft.move(("trainer", "increase_batch_size_on_plateau_max"), ("trainer", "max_batch_size"))


def _upgrade_names(draft: Draft) -> None:
    if draft.get("hyperopt") == {}:
        draft.drop("hyperopt")
    for kind in draft.keys("defaults"):
        draft.drop(("defaults", kind, "type"))
    for path in draft.list_mappings("input_features"):
        kind = draft.get((*path, "encoder", "type"))
        if kind in ("_resnet_legacy", "_vit_legacy"):
            draft.put((*path, "encoder", "type"), kind.split("_")[1])
    scheduler = ("trainer", "learning_rate_scheduler")
    for old, new in _SCHEDULER_KEYS.items():
        value = draft.get(("trainer", old))
        if isinstance(value, bool) and old in ("decay", "reduce_learning_rate_on_plateau"):
            draft.put(("trainer", old), int(value) if old != "decay" else "exponential" if value else None)
        if isinstance(draft.get(scheduler), dict | None):
            draft.move(("trainer", old), (*scheduler, new))


_STEPS: tuple[tuple[int, Callable[[Draft], None]], ...] = (
    *((5, step) for step in (_rename_training, _move_preprocessing_of_types, _upgrade_hyperopt, _rename_biases)),
    *((5, _upgrade_split), (6, _upgrade_values), (6, _nest_options), (7, _upgrade_names)),
)
"""Steps in Ludwig's order, each with the minor version 0.x that brought it."""


def _merge_defaults(draft: Draft) -> None:
    """Merge `defaults` into the features of each type."""
    used = set()
    for path in draft.list_mappings(*_FEATURES):
        ignored = ("decoder", "loss") if path[0] == "input_features" else ("encoder", "preprocessing")
        source = ("defaults", str(draft.get((*path, "type"))))
        used.add(source[1])
        for key in [key for key in draft.keys(source) if key in ignored]:
            draft.remark((*source, key), f"is ignored by Ludwig; write it under {path[0]}.{path[1]}")
        _merge(draft, source, path, ignored)
    for kind in draft.keys("defaults"):
        if kind in FEATURE_TYPES:  # another word is a mistake, and is reported
            draft.drop(("defaults", kind), "" if kind in used else "is ignored: there is no such feature")
    if draft.get("defaults") == {}:
        draft.drop("defaults")


def _merge(draft: Draft, source: KeyPath, target: KeyPath, ignored: tuple[str, ...]) -> None:
    for key in [key for key in draft.keys(source) if key not in ignored]:
        given, own = draft.get((*source, key)), draft.get((*target, key))
        if key not in draft.keys(target):
            draft.copy((*source, key), (*target, key))
        elif isinstance(given, dict) and given.get("type") == (own or {}).get("type", given.get("type")):
            _merge(draft, (*source, key), (*target, key), ignored)


def drop_ignored(draft: Draft) -> None:
    """Remove what Ludwig ignores in silence, and what names columns and caches, with a remark each."""
    _drop_other_options(draft)
    for key in draft.keys(()):
        if key in _NOTES or str(key).startswith(("x-", "_", ".")):
            draft.drop((key,), "is ignored by Ludwig: a note")
    for key in ("cache_dir", "cache_credentials", "credentials", "loader", "processor", "initialization"):
        draft.drop(("backend", key), "is ignored: images are read from the data set, and nothing is cached")
    for path in draft.list_mappings(*_FEATURES):
        draft.drop((*path, "active"))
        name = draft.get((*path, "name"))
        for key in ("column", "proc_column"):
            same = draft.get((*path, key)) == name
            draft.drop((*path, key), "" if same else "is ignored: the data set says which column is which")
        if isinstance(name, str) and name != (plain := re.sub(r"""[(){}.:"'\[\]]""", "_", name)):
            draft.put((*path, "name"), plain, "as Ludwig writes it")


def _drop_other_options(draft: Draft) -> None:
    """Remove keys of old versions, and of another type than the section's."""
    for path, schema in list(_walk(draft, (), read_ludwig_schema())):
        own, others = _split_options(schema, draft.get((*path, "type")))
        has_layers = {"out_channels", "output_size"} & own.keys()
        for key in draft.keys(path):
            if key in _NEW_NAMES and has_layers and key not in own:
                draft.drop((*path, key), f"is ignored by Ludwig, which takes its default; write {_NEW_NAMES[key]}")
            elif key in others - own.keys():
                draft.drop((*path, key), "is ignored by Ludwig: it belongs to another type")


def _walk(draft: Draft, path: KeyPath, schema: Schema) -> Iterator[tuple[KeyPath, Schema]]:
    """Yield each mapping of a config that the schema describes, outermost first."""
    value = draft.get(path)
    for part in schema.get("oneOf", (schema,)):
        if isinstance(value, list) and "items" in part:
            for index in range(len(value)):
                yield from _walk(draft, (*path, index), part["items"])
        elif isinstance(value, dict) and ("properties" in part or "allOf" in part):
            yield path, part
            own, _ = _split_options(part, value.get("type"))
            for key in value:
                yield from _walk(draft, (*path, key), own.get(key, {}))


def _split_options(schema: Schema, kind: object) -> tuple[Schema, set[str]]:
    """Return the options of a section of this type by name, and the names of every type's options."""
    own = dict(schema.get("properties", {}))
    kind = own.get("type", {}).get("default") if kind is None else kind
    branches = read_branches(schema)
    every = {name for branch in branches.values() for name in branch.get("properties", {})}
    if not isinstance(kind, str) or kind not in branches:
        return own, set()
    return own | branches[kind].get("properties", {}), every


def _feature_schema(section: str) -> Schema:
    features: Schema = read_ludwig_schema()["properties"][section]["items"]
    return features


@functools.cache
def _list_options(section: str, part: str) -> frozenset[str]:
    """Return the options of all encoders, or all decoders."""
    parts = [feature["properties"][part] for feature in read_branches(_feature_schema(section)).values()]
    options = [branch.get("properties", {}) for each in parts for branch in read_branches(each).values()]
    return frozenset(_NEW_NAMES).union(_FC_KEYS, *options)
