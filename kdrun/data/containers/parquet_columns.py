"""Which columns of Parquet files hold images and labels, and their class names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kdrun.data.containers.parquet_reader import import_pyarrow
from kdrun.data.text import abbreviate
from kdrun.errors import ConfigError, DataError, did_you_mean

IMAGE_NAMES = {"image", "img", "images", "picture", "photo", "jpg", "png", "pixel_values"}
LABEL_NAMES = {"label", "labels", "class", "target", "category", "class_label", "label_name"}
PATH_NAMES = {"path", "file_name", "filename", "file", "image_path", "filepath"}


@dataclass(frozen=True)
class Columns:
    """The columns to read. Its repr is part of the cache key.

    image: column of the images. as_path: it holds paths instead of images. names: class names of a
    `ClassLabel`, in the order of their numbers; None for plain labels.
    """

    image: str
    as_path: bool
    label: str
    names: tuple[str, ...] | None


def find_columns(schema: Any, image: str | None, label: str | None, where: str) -> Columns:
    """The columns of a schema: those the user names, or the only candidates.

    Raises ConfigError for an unknown column, DataError for no candidate or several.
    """
    features = _features(schema)
    types = import_pyarrow()[0].types
    kinds = {field.name: _image_kind(field.type, types) for field in schema}
    for key, chosen in (("image_column", image), ("label_column", label)):
        if chosen is not None and chosen not in schema.names:
            raise ConfigError(
                f"dataset.{key}={chosen}: {where} has no such column."
                f"{did_you_mean(chosen, schema.names)} It has: {abbreviate(schema.names, 12)}."
            )
    if image is None:
        image = _image_column(schema.names, kinds, features, where)
    elif kinds[image] is None:
        raise DataError(_unreadable(image, schema, where))
    if label is None:
        label = _label_column(schema, features, image, where)
    names = features.get(label, {}).get("names") if _is(features, label, "ClassLabel") else None
    return Columns(image, kinds[image] == "path", label, tuple(map(str, names)) if names else None)


def _features(schema: Any) -> dict[str, Any]:
    """Column metadata of the Hugging Face `datasets` library; empty if absent."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = metadata["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: value for name, value in features.items() if isinstance(value, dict)}


def _is(features: dict[str, Any], name: str, kind: str) -> bool:
    return bool(features.get(name, {}).get("_type") == kind)


def _image_kind(kind: Any, types: Any) -> str | None:
    """How a column of this type can hold images: `struct`, `bytes`, `path` or None."""
    if types.is_struct(kind):
        members = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        content = members.get("bytes")
        return "struct" if content is not None and _is_bytes(content, types) else None
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
    tiers = (
        [name for name in stored if _is(features, name, "Image")],
        stored,
        [name for name in names if kinds[name] == "path" and name.lower() in IMAGE_NAMES],
        [name for name in names if kinds[name] == "path" and name.lower() in PATH_NAMES],
    )
    if (column := _only_candidate(tiers, "image", where)) is not None:
        return column
    raise DataError(
        f"{where} has no column of encoded images (it has {abbreviate(list(names), 12)}): "
        "dataset=parquet reads encoded image files as Hugging Face's Image feature stores them; "
        "dataset=custom reads arrays."
    )


def _only_candidate(tiers: Sequence[list[str]], what: str, where: str) -> str | None:
    """The candidate of the first non-empty tier. Raises DataError if that tier has several."""
    for candidates in tiers:
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            options = " or ".join(f"dataset.{what}_column={name}" for name in candidates[:5])
            raise DataError(f"{where} has {len(candidates)} columns of {what}s: set {options}.")
    return None


def _unreadable(name: str, schema: Any, where: str) -> str:
    return (
        f"dataset.image_column={name}: {where} has type {schema.field(name).type}, not encoded "
        "images or paths; dataset=custom reads arrays."
    )


def _label_column(schema: Any, features: dict[str, Any], image: str, where: str) -> str:
    names = [name for name in schema.names if name != image]
    tiers = (
        [name for name in names if _is(features, name, "ClassLabel")],
        [name for name in names if name.lower() in LABEL_NAMES],
        [name for name in names if name.lower().endswith(("_label", "_class"))],
    )
    if (column := _only_candidate(tiers, "label", where)) is not None:
        return column
    raise DataError(
        f"{where} has no column of labels (it has {abbreviate(list(schema.names), 12)}): set "
        "dataset.label_column=NAME."
    )
