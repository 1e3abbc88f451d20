"""Rows of a run's header about the data: classes, and images of each split."""

from collections.abc import Sequence

from kdrun.data.dataset import Dataset
from kdrun.distillation.networks import dataset_to_dict
from kdrun.ui import tables

MOST_CLASSES = 12  # of a longer list, the first and the last are shown
WIDTH = 110  # characters for the class names


def data_rows(dataset: Dataset) -> list[tuple[str, str]]:
    """The rows `data` and `classes`."""
    return [
        ("data", tables.format_dataset(dataset_to_dict(dataset))),
        ("classes", format_classes(dataset.classes)),
    ]


def format_classes(classes: Sequence[str]) -> str:
    """`cat, dog, emu`, by class index; a long list shows the first ones and the last."""
    names = [
        name.encode("unicode_escape").decode() if not name.isprintable() else name
        for name in classes
    ]
    shown = ", ".join(names)
    if len(names) <= MOST_CLASSES and len(shown) <= WIDTH:
        return shown
    first: list[str] = []
    for name in names[: MOST_CLASSES - 2]:
        if first and len(", ".join([*first, name, names[-1]])) > WIDTH:
            break
        first.append(name)
    return f"{', '.join(first)}, ..., {names[-1]}" if len(first) < len(names) else shown
