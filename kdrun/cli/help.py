"""The help pages of kdrun and of its verbs, wrapped to the width of the terminal."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kdrun.cli import config_groups, parser, verbs
from kdrun.config import options
from kdrun.config.schema import SHARED_LOSS_SETTINGS, LossConfig
from kdrun.config.settings import help_of
from kdrun.losses.auto_weight import PUBLISHED_RATIOS

ABOUT = (
    "kdrun: how much of a big classifier can a small one keep, and with which recipe?",
    "It trains (or finds) the teacher, distils the student, and measures the gain.",
)
EXAMPLES = (
    ("kdrun distill", "digits, a small CNN, soft targets: ~25 s on one CPU core"),
    ("kdrun distill 'loss=[kd,sp]' loss.sp.weight=10", "two losses and their weights"),
    ("kdrun distill -m T=1,4,20 alpha=0.1,0.9", "a sweep: one teacher, six students, a ranking"),
    ("kdrun distill -m T=1,4,20 --dry-run", "what a sweep would run, and what exists already"),
    ("kdrun train-teacher teacher=cnn_large", "stage 1 alone"),
    ("kdrun report outputs", "all results, as a table and a page"),
    ("kdrun ls loss", "the options of a group"),
    ("kdrun doctor", "what this machine has"),
)
MORE = (
    "kdrun VERB --help: the options and settings of a verb. Settings are typed NAME=VALUE and need "
    "no dashes. Tab completion: kdrun completion bash|zsh|fish. Documentation: README.md and docs/."
)
NARROWEST, WIDEST = 40, 120
# Groups with more options than this are listed by their folders.
LISTED = 45


def front() -> str:
    """The help page of `kdrun`."""
    summaries = list(verbs.summaries().items())
    return "\n".join(
        [*ABOUT, "", "Examples:", *_rows(EXAMPLES), "", "Verbs:", *_rows(summaries), "",
         *_wrapped(MORE)]
    )  # fmt: skip


def page(verb: str, config_dir: Path | None = None) -> str:
    """The page of a verb: what it does, examples, groups, settings, options."""
    literals = verbs.constants(verb)
    lines = [literals.get("USAGE") or _usage(verb)]
    lines += _wrapped(literals.get("ABOUT") or f"{_capital(literals['SUMMARY'])}.")
    examples = literals.get("EXAMPLES")
    if examples:
        lines += ["", "Examples:", *_rows([(e, "") if isinstance(e, str) else e for e in examples])]
    if verb in verbs.config_names():
        lines += _configuration(verbs.config_names()[verb], config_dir)
    lines += [
        "",
        "Options:",
        *_rows([(typed, text) for typed, text in parser.declared(verb).items()]),
    ]
    return "\n".join(lines)


def _usage(verb: str) -> str:
    if verb in verbs.config_names():
        return f"kdrun {verb} [GROUP=OPTION]... [NAME=VALUE]... [OPTIONS]"
    return f"kdrun {verb} [OPTIONS]"


def _configuration(config_name: str, config_dir: Path | None) -> list[str]:
    """Groups with their options, then the settings by subject."""
    primary = config_groups.primary(config_name)
    lines = ["", "Groups (GROUP=OPTION; kdrun ls GROUP describes the options):"]
    lines += _groups(primary.groups, config_dir)
    for section in config_groups.sections(config_name):
        rows = [row for key, setting in section.keys.items() for row in _setting(key, setting)]
        if rows:
            lines += ["", *_wrapped(f"{section.title}:"), *_rows(rows)]
    for group in ("dataset", "teacher", "student", "schedule", "augment"):
        if group in primary.groups:
            lines += [
                "",
                f"Settings of every {group}:",
                *common_settings(config_name, group),
            ]
    return lines


def _groups(groups: dict[str, Any], config_dir: Path | None) -> list[str]:
    """Each group with its default and its options; a list that was shown is not repeated."""
    known = config_groups.list_groups(config_dir)
    lines: list[str] = []
    shown: dict[tuple[str, ...], str] = {}
    for group, default in groups.items():
        names = tuple(known.get(group.split("@")[0], []))
        lines.append(f"  {group}={_text(default)}")
        if not names:
            text = "none yet"
        elif names in shown:
            text = f"the options of {shown[names]}"
        elif len(names) > LISTED and any("/" in name for name in names):
            text = _folders(names)
        else:
            text = ", ".join(names)
        shown.setdefault(names, group)
        lines += _wrapped(text, 6)
    return lines


def _folders(names: Sequence[str]) -> str:
    """`deit/ (24), hinton2015/ (9), smoke`."""
    counts: dict[str, int] = {}
    for name in names:
        folder, slash, _ = name.partition("/")
        counts[folder + slash] = counts.get(folder + slash, 0) + 1
    return ", ".join(f"{key} ({n})" if key.endswith("/") else key for key, n in counts.items())


def _setting(key: str, setting: config_groups.Key) -> list[tuple[str, str]]:
    """The rows of a setting; of one with parts, a row for each part."""
    if isinstance(setting.value, dict) and setting.value:
        return [
            (f"{key}.{name}={_text(value)}", setting.inner.get(name, ""))
            for name, value in setting.value.items()
        ]
    return [(f"{key}={_text(setting.value)}", setting.comment)]


def common_settings(config_name: str, group: str) -> list[str]:
    """Lines for the settings shared by all options of a group."""
    bare = group == "teacher" and config_name in ("evaluate", "export")
    node = options.nodes()[f"{'teacher_file' if bare else group}_keys"]
    return _rows(
        (f"{group}.{key}={_text(value)}", node.help[key]) for key, value in node.values.items()
    )


def loss_settings(name: str) -> list[str]:
    """Lines for the settings that every loss has, with the default ratio of this one."""
    lines = help_of(LossConfig)
    ratio = PUBLISHED_RATIOS.get(name)
    given = "1" if ratio is None else f"{ratio:g}, as its published weight gives on CIFAR-100"
    lines["auto_ratio"] += f": {given}"
    return _rows((f"loss.{name}.{key}", lines[key]) for key in ("weight", *SHARED_LOSS_SETTINGS))


def _rows(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Two columns; the right one is wrapped, and goes below where the left one is long."""
    rows = list(rows)
    width = _width()
    column = min(max((len(left) for left, _ in rows), default=0), max(12, width // 2 - 4))
    lines: list[str] = []
    for left, right in rows:
        text = textwrap.wrap(right, max(20, width - column - 4)) or [""]
        if len(left) > column:
            lines.append(f"  {left}")
            left = ""
            if not right:
                continue
        lines.append(f"  {left:{column}}  {text[0]}".rstrip())
        lines += [f"  {'':{column}}  {more}" for more in text[1:]]
    return lines


def _wrapped(text: str, indent: int = 0) -> list[str]:
    spaces = " " * indent
    return textwrap.wrap(text, _width(), initial_indent=spaces, subsequent_indent=spaces,
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _width() -> int:
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _text(value: Any) -> str:
    """A value as an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{','.join(map(_text, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{_text(one)}" for key, one in value.items()) + "}"
    return str(value)
