"""From a composed configuration to its checked dataclass; what it names may be called then."""

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from kdrun.cli import peers
from kdrun.config import parse, places, trust, validate
from kdrun.config.benchmark import benchmark_config
from kdrun.config.schema import (
    BenchmarkConfig,
    DistillConfig,
    EvaluateConfig,
    ExportConfig,
    TrainTeacherConfig,
)

Config = TrainTeacherConfig | DistillConfig | EvaluateConfig | ExportConfig | BenchmarkConfig


def typed_config(verb: str, cfg: DictConfig, config_dir: Path | None = None) -> Config:
    """The composed configuration of `verb` as its dataclass, types and ranges checked.

    config_dir: the folder of the user's own options; Hydra must be initialised.
    What it names may be called from here on: it is what the user typed.
    """
    config = _typed(verb, cfg, config_dir)
    trust.name(trust.targets_in(asdict(config)))
    places.typed(config)
    return config


def _typed(verb: str, cfg: DictConfig, config_dir: Path | None) -> Config:
    if verb == "train-teacher":
        train = parse.train_teacher_config(cfg)
        validate.validate_train_teacher(train)
        return train
    if verb in ("distill", "search"):
        peers.fill_in(cfg, config_dir)
        distill = parse.distill_config(cfg)
        validate.validate_distill(distill)
        return distill
    if verb == "export":
        export = parse.export_config(cfg)
        validate.validate_export(export)
        return export
    if verb == "benchmark":
        return benchmark_config(cfg)
    evaluate = parse.evaluate_config(cfg)
    validate.validate_evaluate(evaluate)
    return evaluate
