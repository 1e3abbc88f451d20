"""The help pages of kdrun and of its verbs."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdrun.cli import config_groups

FRONT = """\
kdrun: how much of a big classifier can a small one keep, and with which recipe?
It trains (or finds) the teacher, distils the student, and says what was gained.

Try:
  kdrun distill                                   digits, a small CNN, soft targets: a few minutes
  kdrun distill 'loss=[kd,sp]' T=4 alpha=0.9      two losses, their temperature and weight
  kdrun distill -m T=1,4,20 alpha=0.1,0.9         a sweep: one teacher, six students, a ranking
  kdrun train-teacher teacher=cnn_large epochs=10 stage 1 alone
  kdrun report outputs                            what came out, as a table and a page
  kdrun ls loss                                   what there is to choose from
  kdrun doctor                                    what this machine has

Verbs:
{verbs}

kdrun VERB --help says more. Settings are typed NAME=VALUE and need no dashes.
Tab completion: kdrun completion bash|zsh|fish. Documentation: README.md and docs/.
"""


FLAGS = """\
Flags:
  -m, --multirun         every combination of the comma-separated values, one run each
  --config-dir DIR       add the options in your own folder, e.g. DIR/student/mine.yaml
  --trust MODULE         let a run or card from elsewhere call this module's code (any verb)
  --cfg job [--resolve]  print the configuration instead of running; -p NODE: a part of it
  --info [defaults]      print where each part of the configuration comes from
  --hydra-help           what else Hydra accepts
"""


def front(verbs: Iterable[tuple[str, str]]) -> str:
    """The page of `kdrun` alone: what it is, examples, and `verbs` as (name, summary)."""
    return FRONT.format(verbs="\n".join(f"  {name:15}{summary}" for name, summary in verbs))


def verb(config_name: str, examples: Iterable[str], config_dir: Path | None) -> str:
    """The page of a verb with a configuration: examples, groups with options, settings."""
    primary = config_groups.primary(config_name)
    about = config_groups.first_comment(config_groups.package_dir() / f"{config_name}.yaml")
    options = config_groups.list_groups(config_dir)
    lines = [about, "", "Try:", *(f"  {example}" for example in examples), ""]
    lines += ["Groups (choose with GROUP=OPTION; kdrun ls GROUP says what each is):"]
    for group, default in primary.groups.items():
        names = ", ".join(options.get(group.split("@")[0], [])) or "none yet"
        lines += [f"  {group}={_shown(default)}", f"      {names}"]
    lines += ["", "Settings (change with NAME=VALUE):"]
    for key, setting in primary.keys.items():
        left = f"{key}={_shown(setting.value)}"
        lines.append(f"  {left:39} {setting.comment}".rstrip())
    for group in ("dataset", "teacher", "student"):
        if group in primary.groups:
            lines += _common_settings(config_name, group)
    return "\n".join([*lines, "", FLAGS])


def _common_settings(config_name: str, group: str) -> list[str]:
    """What every option of a group has, from `<group>_keys.yaml`, with its comments."""
    bare = group == "teacher" and config_name in ("evaluate", "export")
    path = config_groups.package_dir() / f"{'teacher_file' if bare else group}_keys.yaml"
    found = re.findall(r"^(\w+): +(\S.*?) +# (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    lines = [f"  {f'{group}.{key}={value}':39} {comment}" for key, value, comment in found]
    return ["", f"Settings of every {group}:", *lines]


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)
