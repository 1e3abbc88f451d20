"""What is said of the transfer set, and the errors in the classes that it left out."""

from typing import Any

from rich.table import Table

from kdrun.ui import format
from kdrun.ui.tables import new_table

MANY_CLASSES = 20


def transfer_words(facts: dict[str, Any]) -> str:
    """`48,526 of the 54,000 training images, without the class 3; labels not used`."""
    if facts["folder"] is not None:
        words = f"{facts['size']:,} pictures of {facts['folder']}"
    else:
        words = f"{facts['size']:,} of the {facts['train_size']:,} training images"
    if facts["fraction"] != 1:
        words += f", {100 * facts['fraction']:g} % chosen by transfer.seed={facts['seed']}"
    left_out = facts["classes_left_out"]
    if left_out:
        shown = ", ".join(left_out[:10]) + (", ..." if len(left_out) > 10 else "")
        words += f", without class{'es' * (len(left_out) > 1)} {shown}"
    return words if facts["labels"] else f"{words}; no labels"


def class_table(result: dict[str, Any]) -> Table | None:
    """Errors per class, where the transfer set left classes out; None elsewhere.

    Of more than MANY_CLASSES only those left out have a line each.
    """
    plain = result["student"].get("errors_per_class")
    if not plain:
        return None
    corrected = result["student"].get("bias_corrected")
    after = corrected["errors_per_class"] if corrected else plain
    left_out = set(result["transfer"]["classes_left_out"])
    table = new_table("class", "test images", "errors", *(["bias corrected"] if corrected else []))
    others = [0, 0, 0]
    for row, later in zip(plain, after, strict=True):
        numbers = [row["images"], row["errors"], later["errors"]]
        if len(plain) > MANY_CLASSES and row["class"] not in left_out:
            others = [a + b for a, b in zip(others, numbers, strict=True)]
            continue
        name = row["class"] + ("  (left out)" if row["class"] in left_out else "")
        table.add_row(name, *(format.count(n) for n in numbers[: 3 if corrected else 2]))
    if others[0]:
        table.add_row("all others", *(format.count(n) for n in others[: 3 if corrected else 2]))
    return table
