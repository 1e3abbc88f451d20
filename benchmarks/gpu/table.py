"""The kit's results as Markdown."""

from typing import Any


def markdown(results: dict[str, Any]) -> str:
    """All parts that `results` has, in order."""
    machine = results["machine"]
    lines = [
        f"{machine['device']}, torch {machine['torch']}, CUDA {machine['cuda']}, "
        f"{machine['cpus']} CPUs",
        "",
    ]
    if "tests" in results:
        lines += _tests(results["tests"])
    if "steps" in results:
        lines += _steps(results["steps"])
    if "training" in results:
        lines += _training(results["training"])
    if "full" in results:
        lines += _training(results["full"])
    return "\n".join(lines) + "\n"


def _tests(tests: dict[str, Any]) -> list[str]:
    rows = [
        f"| {name} | {case['outcome']} | {case['seconds']:.1f} |"
        for name, case in tests["cases"].items()
    ]
    rows += [
        f"| {file} | {code if isinstance(code, str) else f'exit code {code}'} | |"
        for file, code in tests["exit_codes"].items()
        if code
    ]
    return ["| CUDA test | outcome | s |", "|---|---|---|", *rows, ""]


def _steps(steps: dict[str, Any]) -> list[str]:
    """Median ms per step, and how many times as fast as the usual loop (ratio of medians)."""
    lines = [
        "| pair | variant | ms per step | × the usual loop (ratio of medians) | first block, s |"
    ]
    lines += ["|---|---|---|---|---|"]
    for pair, measured in steps.items():
        if isinstance(measured, str):
            lines.append(f"| {pair} | {measured} | | | |")
            continue
        usual = measured["variants"].get("usual")
        for name, variant in measured["variants"].items():
            step = variant["step_ms"]["median"]
            ratio = ""
            if usual is not None:  # times_this: speed of the variant over the configuration's
                against = variant["times_this"]["median"] / usual["times_this"]["median"]
                ratio = f"{against:.2f}"
            first = variant["first_block_seconds"]
            lines.append(f"| {pair} | {name} | {step:.2f} | {ratio} | {first:.1f} |")
    return [*lines, ""]


def _training(training: dict[str, Any] | str) -> list[str]:
    if isinstance(training, str):
        return [f"Training: {training}.", ""]
    result = training.get("result")
    if result is None:
        return [f"The training ended with exit code {training['exit_code']}.", ""]
    student, seconds = result["student"], result["time"]["seconds"]
    top1 = student["test"]["top1"] if student.get("test") else float("nan")
    return [
        f"ResNet-56 → ResNet-20 on {training['data']}, {training['epochs']} epochs, "
        f"{seconds:.0f} s of training: {top1:.2f} % on the test images.",
        "",
    ]
