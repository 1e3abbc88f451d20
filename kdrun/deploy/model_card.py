"""`MODEL_CARD.md`: what a deployed network is, what it was measured to do, and its limits."""

from typing import Any

from kdrun.markdown import code, escaped
from kdrun.models.card import INTERRUPTED_AT, NetworkCard
from kdrun.report.metrics_table import SPLIT_METRICS
from kdrun.runs.result import DatasetResult, Metrics, RunResult

Facts = dict[str, Any]


def markdown(
    export: Facts, card: NetworkCard, data: DatasetResult, result: RunResult | None
) -> str:
    """The model card.

    export: what `export.json` says. data: of the training. result: the run's `result.json`; None
    for a teacher or a file alone.
    """
    parts = [
        "# " + escaped(f"{card.name} on {data.name}"),
        _summary(export, card, result),
        "## Input and output",
        _interface(export["metadata"], card),
        "## Training",
        _training(data, card, result),
        "## Measured",
        _measured(data, card, result),
        "## Files",
        _files(export["files"], data),
    ]
    if export["timing"]:
        parts += ["## Size and latency", _latency(export["timing"])]
    parts += ["## Use", _use(export), "## Limits", _limits(export, card, data, result)]
    return "\n\n".join(parts) + "\n"


def _summary(export: Facts, card: NetworkCard, result: RunResult | None) -> str:
    taught = [escaped(str(teacher.name)) for teacher in (result.teachers if result else ())]
    how = f", distilled from {' and '.join(taught)}" if taught else ""
    return (
        f"An image classifier for {len(card.classes)} classes{how}: {card.params:,} parameters, "
        f"{card.flops:,} FLOPs per image (a multiply-add counts as 2). "
        f"Made by {export['metadata']['made_by']}."
    )


def _interface(metadata: Facts, card: NetworkCard) -> str:
    shape = " × ".join(str(size) for size in metadata["input"]["shape"])
    constants = metadata["normalisation"]
    lines = [
        f"- Input `{metadata['input']['name']}`: `{shape}` (batch, channels, height, width), "
        f"{metadata['input']['values']}, {metadata['input']['channels']}.",
        f"- Normalisation, mean {constants['mean']} and deviation {constants['std']} of "
        f"{constants['of']}: inside ONNX and PT2 files, not inside safetensors.",
        f"- Output `{metadata['output']['name']}`: `batch × {len(card.classes)}` logits; softmax "
        "of them gives probabilities.",
        f"- Classes, in order: {_listed(card.classes)}. They are inside every file.",
    ]
    return "\n".join(lines)


def _listed(classes: tuple[str, ...], most: int = 20) -> str:
    shown = ", ".join(code(name) for name in classes[:most])
    return shown if len(classes) <= most else f"{shown} and {len(classes) - most} more"


def _training(data: DatasetResult, card: NetworkCard, result: RunResult | None) -> str:
    sizes = ""
    if data.train_size is not None:
        sizes = (
            f", {data.train_size:,} training, {data.val_size:,} validation and "
            f"{data.test_size:,} test images"
        )
    lines = [
        f"- Data: {escaped(str(data.name))}{sizes} (fingerprint `{str(data.fingerprint)[:16]}`).",
        f"- Network: {code(card.target)} with "
        f"{code(str(card.kwargs)) if card.kwargs else 'no arguments'}.",
    ]
    if at := card.extra.get(INTERRUPTED_AT):
        lines.append(
            f"- An unfinished training: the weights after epoch {at['epoch']} of {at['epochs']}."
        )
    if result is None:
        return "\n".join(lines)
    transfer = result.transfer
    if transfer.size is not None and transfer.size != data.train_size:
        without = ", ".join(code(name) for name in transfer.classes_left_out)
        lines.append(
            f"- The student learned from {transfer.size:,} images"
            + (f", none of them of {without}" if without else "")
            + "."
        )
    lines += [
        f"- Objective: {code(str(result.objective))}, {result.epochs} epochs, seed "
        f"{result.seed}, {escaped(str(result.precision))} on {escaped(str(result.device))}.",
        *(
            f"- Teacher: {escaped(str(teacher.name))}, {teacher.params:,} parameters, top-1 "
            f"{teacher.test.top1:.2f} % (SHA-256 {code(str(teacher.sha256)[:16])})."
            for teacher in result.teachers
        ),
        "- The whole recipe is `config.yaml` of the run's folder; `command.txt` repeats it.",
    ]
    return "\n".join(lines)


def _measured(data: DatasetResult, card: NetworkCard, result: RunResult | None) -> str:
    """The metrics of the run, on the whole test split, last epoch."""
    rows: list[tuple[str, Metrics]] = []
    averaged = "ema_decay" in card.extra
    if result is None:
        rows.append((card.name, Metrics.from_dict(card.extra.get("test") or {})))
    else:
        rows += [(f"teacher {teacher.name}", teacher.test) for teacher in result.teachers]
        rows.append(("student alone (labels only)", result.alone.test))
        if averaged:
            rows.append((f"this network ({result.student.ema.title})", result.student.ema.test))
        else:
            rows.append(("this network", result.student.test))
    names = " | ".join(metric.name for metric in SPLIT_METRICS)
    lines = [f"| test split | {names} |", "|---|" + "---:|" * len(SPLIT_METRICS)]
    lines += [
        f"| {escaped(name)} | {' | '.join(metric.text(test) for metric in SPLIT_METRICS)} |"
        for name, test in rows
        if test
    ]
    count = "" if data.test_size is None else f"{data.test_size:,} "
    note = f"\nLast epoch, {count}test images, which chose nothing"
    if result is not None and result.agreement is not None and not averaged:
        note += f"; the same answer as the teacher on {result.agreement:.2f} % of them"
    return "\n".join(lines) + f"\n{note}."


def _files(files: dict[str, Facts], data: DatasetResult) -> str:
    lines = [
        "Each file was compared with the original network on test images.",
        "",
        "| file | bytes | test images | same answer % | largest difference of logits | top-1 % "
        "(original) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, facts in files.items():
        check, checked_on = facts["check"], facts.get("dataset") or {}
        other = checked_on.get("fingerprint", data.fingerprint) != data.fingerprint
        of = f" of {escaped(checked_on['name'])}, other images" if other else ""
        lines.append(
            f"| `{name}` | {facts['bytes']:,} | {check['images']:,}{of} | "
            f"{check['agreement']:.2f} | {check['max_difference']:.2g} | "
            f"{check['exported']['top1']:.2f} "
            f"({check['original']['top1']:.2f}) |"
        )
    return "\n".join(lines)


def _latency(timing: Facts) -> str:
    sizes = [one["batch_size"] for one in timing["rows"][0]["latency"]]
    heads = [f"p50 / p95 ms, batch {size}" for size in sizes]
    lines = [
        f"| network | runs in | bytes | {' | '.join(heads)} |",
        f"|---|---|---:|{'---:|' * len(heads)}",
    ]
    for row in timing["rows"]:
        cells = [f"{one['p50_ms']:.3g} / {one['p95_ms']:.3g}" for one in row["latency"]]
        name = escaped(row["network"])
        lines.append(f"| {name} | {row['program']} | {row['bytes']:,} | {' | '.join(cells)} |")
    return "\n".join(lines) + f"\n\nOn {timing['processor']}, threads: {timing['threads']}."


def _use(export: Facts) -> str:
    """How to run the files that are there."""
    names = list(export["files"])
    dtype = export["metadata"]["input"]["dtype"]
    shown = []
    for name in names:
        if name.endswith(".onnx"):
            shown.append(
                "import onnxruntime\n"
                f'session = onnxruntime.InferenceSession("{name}")\n'
                f'(logits,) = session.run(None, {{"images": images}})  # a NumPy array, {dtype}'
            )
        elif name.endswith(".pt2"):
            shown.append(
                "import torch\n"
                f'network = torch.export.load("{name}").module()\n'
                f"logits = network(images)  # a tensor, {dtype}"
            )
        else:
            shown.append(f'import kdrun\nnetwork = kdrun.load("{name}")\nlogits = network(images)')
    return "\n\n".join(f"```python\n{text}\n```" for text in dict.fromkeys(shown))


def _limits(export: Facts, card: NetworkCard, data: DatasetResult, result: RunResult | None) -> str:
    lines = [
        "- It names one of its classes for any image, whatever the image shows.",
        f"- The figures hold for images like those of {escaped(str(data.name))}: other "
        "cameras, crops or backgrounds were not measured.",
        f"- Images of another size must be brought to {card.info.image_size[1]}×"
        f"{card.info.image_size[0]} pixels (width × height) as in training.",
    ]
    if result is not None:
        lines.append("- One training run (one seed): another seed gives somewhat other figures.")
    for name, facts in export["files"].items():
        if facts["quantize"]:
            lost = facts["check"]["original"]["top1"] - facts["check"]["exported"]["top1"]
            lines.append(
                f"- `{name}` computes in {facts['quantize']}: {lost:+.2f} points of top-1 lost on "
                f"{facts['check']['images']:,} test images."
            )
    return "\n".join(lines)
