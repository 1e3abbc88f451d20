"""Which columns of Parquet files hold images and labels, and what their labels are called."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdrun.data.containers.listing import abbreviated
from kdrun.errors import ConfigError, DataError, did_you_mean

IMAGE_NAMES = {"image", "img", "images", "picture", "photo", "jpg", "png", "pixel_values"}
LABEL_NAMES = {"label", "labels", "class", "target", "category", "class_label", "label_name"}
PATH_NAMES = {"path", "file_name", "filename", "file", "image_path", "filepath"}


@dataclass(frozen=True)
class Columns:
    """The columns that are read.

    image: its column. as_path: it holds paths instead of images. names: class names in the order of
    the numbers, of a `ClassLabel`; None when the labels are plain values.
    """

    image: str
    as_path: bool
    label: str
    names: tuple[str, ...] | None


def find_columns(
    schema: Any, image: str | None, label: str | None, where: str, arrow: Any
) -> Columns:
    """The columns of a schema: those the user names, or the only candidates.

    Raises ConfigError for a column that does not exist, DataError when none or several could be
    meant.
    """
    features = _features(schema)
    kinds = {field.name: _image_kind(field.type, arrow) for field in schema}
    for key, chosen in (("image_column", image), ("label_column", label)):
        if chosen is not None and chosen not in schema.names:
            raise ConfigError(
                f"dataset.{key}={chosen}: {where} has no such column."
                f"{did_you_mean(chosen, schema.names)} It has: {abbreviated(schema.names, 12)}."
            )
    if image is None:
        image = _image_column(schema.names, kinds, features, where)
    elif kinds[image] is None:
        raise DataError(_unreadable(image, schema, where))
    if label is None:
        label = _label_column(schema, features, image, where, arrow)
    names = features.get(label, {}).get("names") if _is(features, label, "ClassLabel") else None
    return Columns(image, kinds[image] == "path", label, tuple(map(str, names)) if names else None)


def _features(schema: Any) -> dict[str, Any]:
    """What the Hugging Face `datasets` library noted about each column; empty without it."""
    try:
        note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = note["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def _is(features: dict[str, Any], name: str, kind: str) -> bool:
    return bool(features.get(name, {}).get("_type") == kind)


def _image_kind(kind: Any, arrow: Any) -> str | None:
    """How a column of this type holds images: `struct`, `bytes`, `path`; None: not at all."""
    types = arrow.types
    if types.is_struct(kind):
        inside = {kind.field(at).name: kind.field(at).type for at in range(kind.num_fields)}
        found = inside.get("bytes")
        return "struct" if found is not None and _is_bytes(found, types) else None
    if _is_bytes(kind, types):
        return "bytes"
    return "path" if types.is_string(kind) or types.is_large_string(kind) else None


def _is_bytes(kind: Any, types: Any) -> bool:
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or (hasattr(types, "is_binary_view") and types.is_binary_view(kind))
    )


def _image_column(
    names: Sequence[str], kinds: dict[str, str | None], features: dict[str, Any], where: str
) -> str:
    stored = [name for name in names if kinds[name] in ("struct", "bytes")]
    rows = (
        [name for name in stored if _is(features, name, "Image")],
        stored,
        [name for name in names if kinds[name] == "path" and name.lower() in IMAGE_NAMES],
        [name for name in names if kinds[name] == "path" and name.lower() in PATH_NAMES],
    )
    for candidates in rows:
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            options = " or ".join(f"dataset.image_column={name}" for name in candidates[:5])
            raise DataError(f"{where} has {len(candidates)} columns of images: set {options}.")
    raise DataError(
        f"{where} has no column of encoded images (it has {abbreviated(list(names), 12)}): "
        "dataset=parquet reads image files as bytes, as Hugging Face's Image feature stores them; "
        "dataset=custom reads arrays."
    )


def _unreadable(name: str, schema: Any, where: str) -> str:
    return (
        f"dataset.image_column={name}: {where} holds {schema.field(name).type} there, not encoded "
        "images or paths; dataset=custom reads arrays."
    )


def _label_column(schema: Any, features: dict[str, Any], image: str, where: str, arrow: Any) -> str:
    others = [name for name in schema.names if name != image]
    rows = (
        [name for name in others if _is(features, name, "ClassLabel")],
        [name for name in others if name.lower() in LABEL_NAMES],
        [name for name in others if name.lower().endswith(("_label", "_class"))],
    )
    for candidates in rows:
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            options = " or ".join(f"dataset.label_column={name}" for name in candidates[:5])
            raise DataError(f"{where} has {len(candidates)} columns of labels: set {options}.")
    raise DataError(
        f"{where} has no column of labels (it has {abbreviated(list(schema.names), 12)}): set "
        "dataset.label_column=NAME."
    )
