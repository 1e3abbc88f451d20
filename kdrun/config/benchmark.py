"""The configuration of `kdrun benchmark`: read, checked, written back."""

from typing import Any

from omegaconf import DictConfig

from kdrun.config import dump, parse, schema, validate
from kdrun.errors import ConfigError
from kdrun.ranges import check_settings

COMPARED = (
    "usual",
    "plain",
    "folded",
    "compiled",
    "teacher_bf16",
    "bf16",
    "remembered",
    "remembered_bf16",
)


def benchmark_config(cfg: DictConfig) -> schema.BenchmarkConfig:
    """The typed and checked configuration. Raises ConfigError for what cannot be."""
    plain = parse.resolve(cfg)
    given = plain["compare"] or []
    numbers = {name: plain[name] for name in ("rounds", "steps")}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{name}={value!r} is not a whole number.")
    compare = [str(name) for name in (given if isinstance(given, list) else [given])]
    for name in compare:
        validate.one_of("compare", name, COMPARED)
    distill = parse.distill_config(cfg)
    validate.validate_distill(distill)
    config = schema.BenchmarkConfig(distill, compare, **numbers)
    check_settings(config, str)
    return config


def benchmark_plain(config: schema.BenchmarkConfig) -> dict[str, Any]:
    """Plain containers for `benchmark_config`."""
    own = {"compare": config.compare, "rounds": config.rounds, "steps": config.steps}
    return {**dump.distill_plain(config.distill), **own}
