"""Describe the transfer set, and the errors in the classes it omits."""

from rich.table import Table

from kdrun.runs.result import RunResult, TransferResult
from kdrun.ui import format
from kdrun.ui.tables import new_table

# With more classes than this, only those left out have a row each.
MANY_CLASSES = 20
LISTED_CLASSES = 10


def format_transfer(transfer: TransferResult) -> str:
    """`48,526 of the 54,000 training images, without class 3; no labels`."""
    size = format.count(transfer.size or 0)
    if transfer.folder is not None:
        text = f"{size} images of {transfer.folder}"
    else:
        text = f"{size} of the {format.count(transfer.train_size or 0)} training images"
    if transfer.fraction not in (None, 1):
        text += f", {100 * (transfer.fraction or 0):g} % drawn with transfer.seed={transfer.seed}"
    left_out = transfer.classes_left_out
    if left_out:
        more = ", ..." if len(left_out) > LISTED_CLASSES else ""
        plural = "es" if len(left_out) > 1 else ""
        text += f", without class{plural} {', '.join(left_out[:LISTED_CLASSES])}{more}"
    return text if transfer.labels else f"{text}; no labels"


def class_table(result: RunResult) -> Table | None:
    """Errors per class where the transfer set leaves classes out; None elsewhere."""
    plain = result.student.errors_per_class
    if not plain:
        return None
    corrected = result.student.bias_corrected
    after = corrected.errors_per_class or plain
    left_out = set(result.transfer.classes_left_out)
    count = 3 if corrected else 2
    table = new_table("class", *("test images", "errors", "bias corrected")[:count])
    others = [0, 0, 0]
    for row, later in zip(plain, after, strict=True):
        numbers = [row.images or 0, row.errors or 0, later.errors or 0]
        if len(plain) > MANY_CLASSES and row.name not in left_out:
            others = [a + b for a, b in zip(others, numbers, strict=True)]
            continue
        name = row.name + ("  (left out)" if row.name in left_out else "")
        table.add_row(name, *(format.count(n) for n in numbers[:count]))
    if others[0]:
        table.add_row("all others", *(format.count(n) for n in others[:count]))
    return table
