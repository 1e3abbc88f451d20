"""`kdrun doctor`: report versions, CPU, memory, disk, devices and data sets of this machine."""

import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kdrun import __version__
from kdrun.cli import run_index
from kdrun.cli.columns import columns
from kdrun.cli.output import say
from kdrun.cli.parser import parse
from kdrun.errors import EXIT_DONE, EXIT_FAILED, ConfigError
from kdrun.files import free_bytes, require_path, require_root
from kdrun.sweeps.launchers import cpu_cores

ORDER = 150
SUMMARY = "report what this machine has and what is missing"

USAGE = "kdrun doctor [--json] [output_root=DIR]"
ABOUT = (
    "Checks this machine: versions, CPU, memory, disk, devices, data, optional packages. Exit code "
    "1: kdrun cannot run here; the last lines say why."
)
FLAGS = {"--json": "print the report as JSON"}
PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "scikit-learn", "rich")
# What each optional package is for: module, extra of kdrun or None, package.
OPTIONAL = (
    ("tensorboard", "kdrun[tensorboard]", "logger=tensorboard"),
    ("wandb", "kdrun[wandb]", "logger=wandb"),
    ("mlflow", "kdrun[mlflow]", "logger=mlflow"),
    ("trackio", "kdrun[trackio]", "logger=trackio"),
    ("timm", "kdrun[timm]", "networks of timm"),
    ("torch_pruning", "kdrun[prune]", "students cut from their teacher (student=pruned)"),
    ("onnx", "kdrun[onnx]", "kdrun export format=onnx"),
    ("onnxruntime", "kdrun[onnx]", "checking and timing ONNX files, int8"),
    ("joblib", "kdrun[sweep]", "hydra/launcher=joblib: concurrent jobs of a sweep"),
    ("greenlet", "kdrun[lockstep]", "gang=true: jobs of a sweep in lockstep"),
    ("submitit", "kdrun[slurm]", "hydra/launcher=submitit_slurm"),
)
CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "asimd", "bf16")
# How torchvision's compiled operators (nms, roi_align, ...) work with the installed torch.
OPERATORS = {
    "loaded": "its operators load",
    "declared": "its operators do not match this torch (a CUDA build with a CPU torch, or another "
    "version); kdrun works around it, also for your modules. Outside kdrun, install the matching "
    "build: https://pytorch.org/get-started/locally",
    "not installed": "missing: pip install torchvision",
    "unknown": "unknown",
}
GIB = 1024**3


def run(argv: list[str]) -> int:
    """Print the report; returns 0 if there are no problems."""
    args = parse("doctor", argv)
    if args.words:
        raise ConfigError(f"doctor takes no '{args.words[0]}'. See kdrun doctor --help.")
    report = examine(args.output_root)
    say(json.dumps(report, indent=2) if args.given.get("json") else as_text(report))
    return EXIT_DONE if report["usable"] else EXIT_FAILED


def examine(output_root: Path) -> dict[str, Any]:
    """The report as plain data; `problems` has one message per failure."""
    problems: list[str] = []
    torch_facts = _attempt("torch", _torch, problems)
    vision = _attempt("torchvision", _torchvision, problems)
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        problems.append("Python must be 3.11, 3.12 or 3.13: Hydra does not run on others.")
    fault = _output_fault(output_root)
    if fault:
        problems.append(fault)
    return {
        "usable": not problems,
        "problems": problems,
        "versions": {"kdrun": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
        "processor": _processor() | torch_facts.pop("threads", {}),
        "memory_gib": _memory(),
        "disk_free_gib": free_bytes(output_root) / GIB,
        "output_root": str(output_root.resolve()),
        "devices": torch_facts.get("devices", []),
        "precision": torch_facts.get("precision", {}),
        "torchvision_operators": vision.get("operators", "unknown"),
        "optional": {
            package: {"present": _present(module), "for": purpose}
            for module, package, purpose in OPTIONAL
        },
        "data": _data(),
        "teachers": len(run_index.find_teachers(output_root)),
        "runs": len(run_index.run_folders(output_root)),
    }


def as_text(report: dict[str, Any]) -> str:
    """The report as text."""
    processor, memory = report["processor"], report["memory_gib"]
    rows = [(name, version or "missing") for name, version in report["versions"].items()]
    cores = f"{processor['cores']} cores, torch uses {processor.get('torch_threads', '?')} threads"
    rows += [
        ("CPU", f"{processor['name']}, {cores}"),
        ("instructions", ", ".join(processor["flags"]) or "unknown"),
        ("memory", "unknown" if memory is None else f"{memory:.1f} GiB"),
        ("disk", f"{report['disk_free_gib']:.1f} GiB free at {report['output_root']}"),
    ]
    for device in report["devices"]:
        size = device.get("memory_gib")
        rows.append(
            (f"device={device['name']}", device["about"] + (f", {size:.1f} GiB" if size else ""))
        )
    for name, about in report["precision"].items():
        rows.append((f"precision={name}", about))
    rows.append(("torchvision", OPERATORS[report["torchvision_operators"]]))
    for package, fact in report["optional"].items():
        state = "present" if fact["present"] else f"missing: pip install '{package}'"
        rows.append((fact["for"], state))
    rows += [(f"data {place}", about) for place, about in report["data"].items()]
    rows.append(("outputs", f"teachers in the store: {report['teachers']}, runs: {report['runs']}"))
    verdict = "OK" if report["usable"] else "\n".join(report["problems"])
    return f"{columns(rows)}\n\n{verdict}"


def _attempt(
    what: str, examine_it: Callable[[], dict[str, Any]], problems: list[str]
) -> dict[str, Any]:
    """What `examine_it` finds; any exception becomes a message."""
    try:
        return examine_it()
    except Exception as error:  # a broken installation can fail in any way
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        problems.append(f"{what} cannot be imported: {reason}. Install it: pip install {what}")
        return {}


def _torch() -> dict[str, Any]:
    import torch

    devices: list[dict[str, Any]] = []
    for number in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(number)
        devices.append(
            {"name": f"cuda:{number}", "about": facts.name, "memory_gib": facts.total_memory / GIB}
        )
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "about": "Apple GPU"})
    devices.append({"name": "cpu", "about": "CPU"})
    return {
        "threads": {"torch_threads": torch.get_num_threads()},
        "devices": devices,
        "precision": _precision(torch, bool(devices[:-1])),
    }


def _precision(torch: Any, has_gpu: bool) -> dict[str, str]:
    native = {"avx512_bf16", "amx_bf16", "bf16"} & set(_processor()["flags"])
    bf16 = "on the CPU: " + ("fast" if native else "slow, emulated")
    if torch.cuda.is_available():
        bf16 += ", on the GPU: " + ("yes" if torch.cuda.is_bf16_supported() else "no")
    return {
        "fp32": "everywhere",
        "bf16": bf16,
        "fp16": "on the GPU" if has_gpu else "needs a GPU",
    }


def _torchvision() -> dict[str, Any]:
    from kdrun.vision import import_torchvision, repair_torchvision

    import_torchvision()
    return {"operators": repair_torchvision()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _present(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _processor() -> dict[str, Any]:
    """Model name, cores this process may use, and the instruction sets that matter for speed."""
    name, flags = platform.processor() or platform.machine(), ""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                name = value.strip()
            elif key.strip() in ("flags", "Features"):
                flags = value
    except OSError:
        pass  # not Linux: the names above are all there is
    return {
        "name": name,
        "cores": cpu_cores(),
        "flags": [f for f in CPU_FLAGS if f in flags.split()],
    }


def _memory() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError, AttributeError):
        return None


def _output_fault(output_root: Path) -> str:
    """Why the output root is not writable; empty if it is."""
    try:
        require_path(output_root)
        require_root(output_root)
    except ConfigError as error:
        return str(error)
    place = os.path.abspath(output_root)
    while not os.path.isdir(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    if not os.access(place, os.W_OK | os.X_OK):
        return f"output_root={output_root} cannot be written: name another folder."
    return ""


def _data() -> dict[str, str]:
    """The data folders and their contents."""
    places = {"./data": Path("data")}
    if os.environ.get("KDRUN_TEST_DATA"):
        places["$KDRUN_TEST_DATA"] = Path(os.environ["KDRUN_TEST_DATA"])
    found = {}
    for label, place in places.items():
        inside = sorted(p.name for p in place.iterdir()) if place.is_dir() else None
        found[label] = "not there" if inside is None else ", ".join(inside) or "empty"
    return found
