"""`kdrun validate`: every option composed, built and run for one batch, each with a verdict."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdrun.cli import config_groups
from kdrun.cli.output import say
from kdrun.cli.parser import Arguments, parse
from kdrun.config.schema import DistillConfig
from kdrun.config.settings import MISSING
from kdrun.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    ConfigError,
    KdrunError,
    MissingExtraError,
    did_you_mean,
)
from kdrun.user_code import user_code_error

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

    from kdrun.cli.composer import Composer
    from kdrun.evaluation.option_check import Checker

ORDER = 140
SUMMARY = "build every option and run one batch of it"

USAGE = "kdrun validate [GROUP | GROUP/NAME]... [NAME=VALUE]... [--config-dir DIR]"
ABOUT = (
    "Composes and builds every option of every group, your own included, and runs one batch: data "
    "sets where they are available, everything else on synthetic images. Takes about a minute; "
    "exit code 1 when something is broken."
)
EXAMPLES = (
    ("kdrun validate", "everything"),
    ("kdrun validate loss student --config-dir my", "two groups, with your own options"),
    ("kdrun validate loss/mine --config-dir my", "one option"),
    ("kdrun validate loss teacher=resnet20 student=resnet8", "every loss with this pair"),
)
OK, SKIPPED, BROKEN = "ok", "skipped", "broken"
# `model` is what students and teachers are made of; its options are checked as those.
# Losses are tried on networks of one family: some compare layers of equal widths.
PAIR = ("teacher=resnet14", "student=resnet8")
GROUPS = (
    *("loss", "student", "teacher", "dataset", "schedule", "augment", "scheme", "logger"),
    "experiment",
)


@dataclass(frozen=True)
class Verdict:
    """The outcome for one option."""

    group: str
    option: str
    status: str
    words: str


def run(argv: list[str]) -> int:
    """Check what `argv` names; 1 when something is broken."""
    given = parse("validate", argv)
    overrides = [word for word in given.words if "=" in word]
    wanted = _wanted([word for word in given.words if "=" not in word], given)
    config_groups.require_readable(given.config_dir)
    width = max(len(f"{group}/{option}") for group, option in wanted)
    counts = dict.fromkeys((OK, SKIPPED, BROKEN), 0)
    started = time.monotonic()
    for verdict in verdicts(wanted, overrides, given):
        counts[verdict.status] += 1
        name = f"{verdict.group}/{verdict.option}"
        say(f"{verdict.status:7}  {name:{width}}  {verdict.words}")
    parts = ", ".join(f"{number} {status}" for status, number in counts.items() if number)
    say(f"{parts} in {time.monotonic() - started:.0f} s")
    return EXIT_FAILED if counts[BROKEN] else EXIT_DONE


def _wanted(names: list[str], given: Arguments) -> list[tuple[str, str]]:
    """(group, option) of everything to check, in the order of GROUPS."""
    known = config_groups.list_groups(given.config_dir)
    chosen: dict[str, set[str]] = {group: set() for group in GROUPS}
    for name in names or GROUPS:
        group, _, option = name.rstrip("/").partition("/")
        if group not in GROUPS:
            hint = did_you_mean(group, GROUPS) or f" There are {', '.join(GROUPS)}."
            raise ConfigError(f"validate knows no group '{group}'.{hint}")
        options = known.get(group, [])
        if option and option not in options:
            hint = did_you_mean(option, options) or f" There are {', '.join(options)}."
            raise ConfigError(f"There is no {group} '{option}'.{hint}")
        chosen[group] |= {option} if option else set(options)
    return [(group, option) for group in GROUPS for option in sorted(chosen[group])]


def verdicts(
    wanted: list[tuple[str, str]], overrides: list[str], given: Arguments
) -> Iterator[Verdict]:
    """Check options one by one in a temporary folder."""
    from kdrun.cli import grammar, suggestions
    from kdrun.cli.command_spec import CommandSpec
    from kdrun.cli.composer import Composer
    from kdrun.config.composition import hydra_ready
    from kdrun.sweeps.lockstep import require_greenlet

    spec = CommandSpec.of("distill", given.config_dir)
    base = grammar.parse(grammar.with_short_names(overrides, "distill"))
    suggestions.check_names(spec, base)
    for override in base:
        if override.is_sweep_override():
            raise ConfigError(f"'{override.input_line}' names several values: validate takes one.")
    composed: list[tuple[str, str, DistillConfig | Verdict]] = []
    with hydra_ready():
        composer = Composer(spec)
        # a mistake in the overrides is the command's, not an option's
        if composer.typed(base).runtime.gang:
            require_greenlet()
        for group, option in wanted:
            value = f"[{option}]" if group == "loss" else option
            choice = grammar.parse([f"{group}={value}"])
            given_keys = {o.key_or_group for o in base}
            pair = [p for p in PAIR if group == "loss" and p.split("=")[0] not in given_keys]
            kept = [o for o in base if o.key_or_group != group]
            words = [*grammar.parse(pair), *kept, *choice]
            composed.append((group, option, _composed(composer, words, group, option)))
    from kdrun.commands import distill
    from kdrun.evaluation.option_check import Checker

    with tempfile.TemporaryDirectory(prefix="kdrun-validate-") as folder:
        checker = Checker(given.output_root, Path(folder), distill.execute)
        for group, option, config in composed:
            if isinstance(config, Verdict):
                yield config
            else:
                yield _verdict(checker, group, option, config)


def _composed(
    composer: "Composer", overrides: "list[Override]", group: str, option: str
) -> DistillConfig | Verdict:
    """The typed configuration with the option, or why there is none."""
    try:
        missing = _missing(composer.tree(overrides))
        if missing:
            return Verdict(group, option, SKIPPED, f"needs {', '.join(missing)}")
        config = composer.typed(overrides)
    except KdrunError as error:
        return Verdict(group, option, BROKEN, str(error))
    assert isinstance(config, DistillConfig)
    return config


def _missing(node: Any, path: str = "") -> list[str]:
    """Required settings below a node that have no value."""
    if isinstance(node, dict):
        inner = (_missing(value, f"{path}.{key}".lstrip(".")) for key, value in node.items())
        return [name for names in inner for name in names]
    return [path] if node == MISSING else []


def _verdict(checker: "Checker", group: str, option: str, config: DistillConfig) -> Verdict:
    from kdrun.evaluation.option_check import Skipped

    before = time.monotonic()
    try:
        done = checker.check(group, config)
    except (Skipped, MissingExtraError) as reason:
        return Verdict(group, option, SKIPPED, str(reason))
    except KdrunError as error:  # of a user's own code: without its frames, a verdict is a line
        return Verdict(group, option, BROKEN, str(error).partition("\n")[0])
    except Exception as error:  # an exception of user code is a verdict, the check continues
        own = user_code_error(error)
        text = f"{type(error).__name__}: {error}" if own is None else str(own)
        return Verdict(group, option, BROKEN, text.strip().partition("\n")[0])
    return Verdict(group, option, OK, f"{done}, {time.monotonic() - before:.1f} s")
