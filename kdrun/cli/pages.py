"""The help pages of kdrun and of its verbs."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kdrun.cli import groups

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

EXAMPLES = {
    "train-teacher": (
        "kdrun train-teacher dataset=digits teacher=cnn_large",
        "kdrun train-teacher epochs=60 lr=0.1 seed=1",
        "kdrun train-teacher schedule@teacher.schedule=cosine",
    ),
    "distill": (
        "kdrun distill student=cnn_tiny T=4 alpha=0.9",
        "kdrun distill 'loss=[kd,sp]' loss.sp.weight=1000 epochs=60",
        "kdrun distill -m T=1,4,20 alpha=0.1,0.9 seed=0,1,2",
    ),
    "benchmark": (
        "kdrun benchmark dataset=mnist dataset.root=data teacher=mlp1200 student=mlp800",
        "kdrun benchmark compare=[usual,compiled] compile=false",
        "kdrun benchmark teacher=resnet56 student=resnet8 dataset=synthetic dataset.image_size=32",
    ),
    "search": (
        "kdrun search 'T=interval(1,20)' 'lr=tag(log,interval(0.01,0.5))' search.trials=30",
        "kdrun search search=kd student=cnn_tiny",
        "kdrun search 'epochs=int(interval(10,60))' student=cnn_tiny,cnn_large",
    ),
    "evaluate": (
        "kdrun evaluate run=outputs/distill/digits/...",
        "kdrun evaluate run=outputs/distill/digits/... dataset=digits",
        "kdrun evaluate run=student.safetensors dataset=digits device=cpu",
    ),
    "export": (
        "kdrun export run=outputs/distill/digits/... format=onnx",
        "kdrun export run=outputs/distill/digits/... quantize=int8",
        "kdrun export run=outputs/teachers/digits/... format=pt2 out=deploy",
    ),
}

RESUME = """\
kdrun resume RUN
Goes on with an interrupted run or sweep, from its last checkpoint.

Try:
  kdrun ls runs                          the runs there are, newest first
  kdrun resume outputs/distill/...       a run's folder
  kdrun resume outputs/sweeps/...        a sweep's folder: finished jobs are skipped
  kdrun resume theirs --trust my_nets    a stranger's, which may call code of my_nets
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


def verb(name: str, config_name: str, config_dir: Path | None) -> str:
    """The page of a Hydra verb: examples, groups with their options, settings with defaults."""
    primary = groups.primary(config_name)
    about = groups.first_comment(groups.package_dir() / f"{config_name}.yaml")
    options = groups.list_groups(config_dir)
    lines = [about, "", "Try:", *(f"  {example}" for example in EXAMPLES[name]), ""]
    lines += ["Groups (choose with GROUP=OPTION; kdrun ls GROUP says what each is):"]
    for group, default in primary.groups.items():
        names = ", ".join(options.get(group.split("@")[0], [])) or "none yet"
        lines += [f"  {group}={_shown(default)}", f"      {names}"]
    lines += ["", "Settings (change with NAME=VALUE):"]
    for key, setting in primary.keys.items():
        left = f"{key}={_shown(setting.value)}"
        lines.append(f"  {left:40}{setting.comment}".rstrip())
    return "\n".join([*lines, "", FLAGS])


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)
