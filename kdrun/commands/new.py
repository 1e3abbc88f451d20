"""`kdrun new`: a loss, a network or an experiment of the user's own, ready to train and to test."""

import keyword
import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml  # type: ignore[import-untyped]

from kdrun.cli import config_groups, grammar, templates
from kdrun.cli.grammar import shell_quoted
from kdrun.cli.output import say
from kdrun.cli.parser import parse
from kdrun.errors import EXIT_DONE, ConfigError, did_you_mean
from kdrun.files import write_new

ORDER = 130
SUMMARY = "generate a loss, a network or an experiment to edit"

CONFIGS = "my_configs"
USAGE = "kdrun new loss | model | experiment NAME [--dir DIR]"
ABOUT = (
    "Writes a file of your own with its YAML and its test, which trains and passes its test. "
    "Existing files are never overwritten."
)
EXAMPLES = (
    ("kdrun new loss probability_distance", ""),
    ("kdrun new model small_net", ""),
    ("kdrun new experiment first_try --dir research", ""),
)
FLAGS = {"--dir DIR": "write into this folder instead of the current one"}


@dataclass(frozen=True)
class Kind:
    """What can be made. group: whose option the name becomes. suffix: how its class ends.

    files: path → template, and what it is. try_it: the command that uses it.
    """

    group: str
    suffix: str
    files: dict[str, tuple[str, str]]
    try_it: str


KINDS = {
    "loss": Kind(
        "loss",
        "Loss",
        {
            "loss_$name.py": (templates.LOSS, "the loss: change its formula"),
            f"{CONFIGS}/loss/$name.yaml": (templates.LOSS_YAML, "its settings and its weight"),
            "test_loss_$name.py": (templates.LOSS_TEST, "its test"),
        },
        f"kdrun distill --config-dir {CONFIGS} 'loss=[kd,$name]'",
    ),
    "model": Kind(
        "student",
        "Net",
        {
            "network_$name.py": (templates.MODEL, "the network: change its layers"),
            f"{CONFIGS}/model/$name.yaml": (templates.MODEL_YAML, "its settings"),
            "test_network_$name.py": (templates.MODEL_TEST, "its test"),
        },
        f"kdrun distill --config-dir {CONFIGS} student=$name",
    ),
    "experiment": Kind(
        "experiment",
        "",
        {
            f"{CONFIGS}/experiment/$name.yaml": (
                templates.EXPERIMENT_YAML,
                "the experiment: all its choices",
            ),
            "test_experiment_$name.py": (templates.EXPERIMENT_TEST, "its test"),
        },
        f"kdrun distill --config-dir {CONFIGS} experiment=$name",
    ),
}


def run(argv: list[str]) -> int:
    """Write the files that `argv` asks for, and say what to type next."""
    args = parse("new", argv)
    folder = Path(args.given.get("dir", ".")).expanduser()
    if len(args.words) != 2:
        raise ConfigError("new takes what to make and its name: kdrun new loss my_loss.")
    what, name = args.words
    if what not in KINDS:
        hint = did_you_mean(what, KINDS) or f" It makes {', '.join(KINDS)}."
        raise ConfigError(f"new makes no '{what}'.{hint}")
    kind = KINDS[what]
    check_name(what, kind.group, name)
    values = {"name": name, "cls": class_name(name, kind.suffix)}
    values["title"] = name.replace("_", " ").capitalize()
    written = write(kind, values, folder)
    say(_message(kind, what, values, folder, written))
    return EXIT_DONE


def check_name(what: str, group: str, name: str) -> None:
    """Raise ConfigError for a name that Python or kdrun could not use."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        fitting = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        fitting = re.sub(r"\W+", "_", fitting, flags=re.ASCII).strip("_")
        fitting = re.sub(r"^(?=\d|$)", "my_", fitting)
        fitting = f"my_{fitting}" if keyword.iskeyword(fitting) else fitting
        raise ConfigError(
            f"'{name}' cannot be the name of a Python module: use small letters, digits and _, "
            f"e.g. kdrun new {what} {fitting}."
        )
    if is_reserved(name):
        raise ConfigError(
            f"'{name}' is not read as text in YAML or on the command line: choose another name, "
            f"e.g. kdrun new {what} my_{name}."
        )
    if name in config_groups.list_groups().get(group, []):
        raise ConfigError(f"{group}={name} is kdrun's own: choose another name, e.g. my_{name}.")


def is_reserved(name: str) -> bool:
    """Whether YAML or Hydra reads the name as something other than a text (`null`, `on`, `nan`)."""
    if not name.isidentifier():
        return False
    typed = grammar.parse([f"loss={name}"])[0].value()
    return not (isinstance(typed, str) and isinstance(yaml.safe_load(name), str))


def class_name(name: str, suffix: str) -> str:
    """`soft_margin` → `SoftMarginLoss`; a name that ends so already stays (`tiny_net`)."""
    joined = "".join(part[:1].upper() + part[1:] for part in name.split("_"))
    return joined if joined.endswith(suffix) and joined != suffix else joined + suffix


def write(kind: Kind, values: dict[str, str], folder: Path) -> list[tuple[Path, str]]:
    """Write all files or, when one of them is there, none; returns (path, what it is)."""
    files = [
        (folder / Template(name).substitute(values), Template(text).substitute(values), why)
        for name, (text, why) in kind.files.items()
    ]
    try:
        write_new({path: text.encode() for path, text, _ in files})
    except FileExistsError as error:
        raise ConfigError(
            f"{error.filename} is there already and is not overwritten: choose another name, or "
            "another folder with --dir."
        ) from None
    except ConfigError as error:
        raise ConfigError(f"{files[0][0]} cannot be written: {error}") from None
    return [(path, why) for path, _, why in files]


def _message(
    kind: Kind, what: str, values: dict[str, str], folder: Path, written: list[tuple[Path, str]]
) -> str:
    width = max(len(str(path)) for path, _ in written)
    lines = [f"  {path!s:{width}}  {why}" for path, why in written]
    here = folder.resolve() == Path.cwd()
    test = next(path.name for path, _ in written if path.name.startswith("test_"))
    group = "student" if what == "model" else what
    lines += ["next:"] + ([] if here else [f"  cd {shell_quoted(str(folder))}"])
    lines += [
        f"  python -m pytest {test}",
        f"  {Template(kind.try_it).substitute(values)}",
        f"  kdrun validate {group}/{values['name']} --config-dir {CONFIGS}",
    ]
    return "\n".join(lines)
