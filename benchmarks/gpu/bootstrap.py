"""Make kdrun importable from a bare checkout, and find out what the machine lacks."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
# Module → requirement, as in pyproject.toml; torch and torchvision are never installed here.
REQUIRED = {
    "hydra": "hydra-core>=1.3.6,<1.4",
    "omegaconf": "omegaconf>=2.3.1,<2.4",
    "rich": "rich>=13.7",
    "safetensors": "safetensors>=0.4.5",
    "filelock": "filelock>=3.13",
    "sklearn": "scikit-learn>=1.4",
    "matplotlib": "matplotlib>=3.8",
    "jinja2": "jinja2>=3.1",
    "PIL": "pillow>=10",
    "pytest": "pytest>=8",
}
# Runs `kdrun ARGS` from the checkout: its configs are a package elsewhere in the tree.
COMMAND = """
import importlib.util, sys
sys.path[:0] = sys.argv[1].split(":")
if importlib.util.find_spec("kdrun.configs") is None:
    folder = sys.argv[2] + "/configs"
    spec = importlib.util.spec_from_file_location(
        "kdrun.configs", folder + "/__init__.py", submodule_search_locations=[folder])
    module = importlib.util.module_from_spec(spec)
    sys.modules["kdrun.configs"] = module
    spec.loader.exec_module(module)
    sys.modules["kdrun"].configs = module
del sys.argv[1:3]
"""


def missing_here(device: str) -> str | None:
    """One sentence about what is missing on this machine; None: nothing."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed: install torch 2.9 or later with CUDA first."
    import torch

    if importlib.util.find_spec("torchvision") is None:
        return (
            "torchvision is not installed: install the one for "
            f"torch {torch.__version__} first (the usual loop takes its transforms)."
        )
    if device.startswith("cuda") and not torch.cuda.is_available():
        return (
            f"This machine has no GPU that torch {torch.__version__} can use: run this command "
            "on one that has (--device cpu only tries the kit itself)."
        )
    return None


def install_missing(site: Path, wheels: Path | None) -> str | None:
    """Install missing packages into `site`; one sentence if that fails."""
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    missing = [need for name, need in REQUIRED.items() if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    print(f"installing into {site}: {', '.join(missing)}", flush=True)
    source = [] if wheels is None else ["--no-index", "--find-links", str(wheels)]
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", str(site)]
    done = subprocess.run([*command, *source, *missing], check=False)
    if done.returncode == 0:
        return None
    names = " ".join(f"'{need}'" for need in missing)
    return (
        f"These packages are missing and could not be installed: {names}; without a network run "
        f"`pip wheel -w wheels {names}` elsewhere and add --wheels wheels."
    )


def command(site: Path, module: str, *words: str) -> list[str]:
    """The command that runs `python -m module words` with kdrun importable from the checkout."""
    paths = os.pathsep.join([str(ROOT), str(site)])
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", COMMAND + run, paths, str(ROOT), *words]


def machine(device: str) -> dict[str, Any]:
    """GPU, driver's CUDA version, torch, Python."""
    import torch

    name = platform.processor() or platform.machine()
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(device)
    return {
        "device": name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
    }
