"""`kdrun export`: write a finished network for other programs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kdrun.config import parse, rules
from kdrun.config.schema import ExportConfig

ORDER = 40
SUMMARY = "write a finished network as ONNX, PT2 or safetensors"
EXAMPLES = (
    "kdrun export run=outputs/distill/digits/... format=onnx",
    "kdrun export run=outputs/distill/digits/... quantize=int8",
    "kdrun export run=outputs/teachers/digits/... format=pt2 out=deploy",
)
SWEEPS = False
TORCHRUN = False


def run(argv: list[str]) -> int:
    """Run the verb; returns the exit code."""
    from kdrun.cli import execution

    return execution.run_verb("export", argv)


def config(cfg: DictConfig, config_dir: Path | None) -> ExportConfig:
    """The validated dataclass of the configuration."""
    typed = parse.export_config(cfg)
    rules.export(typed)
    return typed


def execute(
    config: ExportConfig, argv: list[str], sweep_dir: Path | None = None, job: int = 0
) -> dict[str, Any]:
    """Write the files; returns what was written and checked."""
    from kdrun.deploy.export import run_export
    from kdrun.distillation.session import open_session

    with open_session(replace(config.runtime, device="cpu")) as session:
        return run_export(config, session, argv)
