"""What a run was computed with: versions, commit, CPU."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import kdrun
from kdrun.engine.devices import available_devices, cpu_name

PACKAGES = ("torch", "torchvision", "hydra-core", "omegaconf", "numpy", "safetensors", "timm")


def environment() -> dict[str, Any]:
    """Plain facts for `env.json`."""
    return {
        "kdrun": kdrun.__version__,
        "git_commit": _commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "processor": cpu_name(),
        "processors": os.cpu_count(),
        "devices": available_devices(),
        "threads": torch.get_num_threads(),
        "executable": sys.executable,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of kdrun's own checkout, with `+` when files differ; None for a wheel."""
    root = Path(kdrun.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+" if _git(root, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=5, check=True
    )
    return done.stdout.strip()
