"""Tab completion: the scripts for the shells, and the candidates they ask for.

A shell calls `kdrun --complete` with the line up to the cursor in COMP_LINE and gets one candidate
per line, each a whole word. Everything is read from YAML; neither Hydra nor torch is imported.
"""

import os
from pathlib import Path
from typing import Any

from kdrun.cli import config_groups, help, parser, run_index
from kdrun.cli.completion_scripts import SCRIPTS
from kdrun.cli.output import say
from kdrun.cli.verbs import config_names
from kdrun.errors import EXIT_DONE, ConfigError, did_you_mean

ORDER = 160
SUMMARY = "print the tab-completion script for bash, zsh or fish"

USAGE = "kdrun completion bash | zsh | fish"
ABOUT = "Prints a script that makes the shell complete verbs, settings, options and run folders."
EXAMPLES = (
    ('eval "$(kdrun completion bash)"', "in ~/.bashrc"),
    ('eval "$(kdrun completion zsh)"', "in ~/.zshrc"),
    ("kdrun completion fish > ~/.config/fish/completions/kdrun.fish", ""),
)
# As many run folders as are offered at once; the newest come first.
OFFERED = 50


def run(argv: list[str]) -> int:
    """Print the script for the shell that `argv` names."""
    if not argv:
        say(help.page("completion"))
        return EXIT_DONE
    if len(argv) != 1 or argv[0] not in SCRIPTS:
        hint = did_you_mean(argv[0], SCRIPTS) or f" There are {', '.join(SCRIPTS)}."
        raise ConfigError(f"There is no completion for '{' '.join(argv)}'.{hint}")
    say(SCRIPTS[argv[0]])
    return EXIT_DONE


def complete(verbs: list[str]) -> int:
    """Print the candidates for the line in COMP_LINE; `verbs` are those kdrun has."""
    names = candidates(os.environ.get("COMP_LINE", ""), verbs)
    if names:
        say("\n".join(names))
    return EXIT_DONE


def candidates(line: str, verbs: list[str]) -> list[str]:
    """Whole words that could stand where the cursor is, at the end of `line`."""
    words = line.split()[1:]
    word = "" if not line or line[-1].isspace() or not words else words.pop()
    word = word.lstrip("'\"")
    if not words:
        return _starting(word, [*verbs, "--help", "--version"])
    if words[0] not in verbs:
        return []
    if word.startswith("-"):
        return _options(words[0], word)
    given = [text.strip("'\"") for text in words[1:]]
    found = _for_verb(words[0], given, word)
    return found or ([] if word else parser.own_option_names(words[0]))


def _options(verb: str, word: str) -> list[str]:
    """The options of a verb, and the values of one that has a list of them."""
    name, equals, value = word.partition("=")
    if equals:
        choices = [one.choices for one in parser.known_options(verb) if one.name == name]
        return [f"{name}={choice}" for choice in _starting(value, list(sum(choices, ())))]
    return _starting(word, sorted(parser.option_names(verb)))


def _for_verb(verb: str, given: list[str], word: str) -> list[str]:
    config_dir = parser.config_dir_of(given)
    if verb in config_names():
        return _for_hydra(config_names()[verb], given, word, config_dir)
    if verb == "ls":
        return _starting(word, [*config_groups.list_groups(config_dir), "runs", "teachers"])
    if verb == "show":
        known = config_groups.list_groups(config_dir)
        options = [f"{group}/{name}" for group in known for name in known[group]]
        return _starting(word, options) or _runs(word, "")
    if verb == "completion":
        return _starting(word, list(SCRIPTS))
    if verb == "report":
        sweeps = sorted(map(str, Path("outputs/sweeps").glob("*/")), reverse=True)
        settings = ["pictures=best", "pictures=all", "to="]
        return _starting(word, [*settings, *sweeps[:OFFERED]]) or _runs(word, "")
    if verb == "new":
        return _starting(word, ["loss", "model", "experiment"])
    if verb == "validate":
        known = config_groups.list_groups(config_dir)
        return _starting(word, [*known, *(f"{g}/{name}" for g in known for name in known[g])])
    if verb == "predict":
        return _runs(word[4:], "run=") if word.startswith("run=") else _starting(word, ["run="])
    return _runs(word, "")


def _for_hydra(config_name: str, given: list[str], word: str, config_dir: Path | None) -> list[str]:
    known = config_groups.primary(config_name)
    sign = word[: len(word) - len(word.lstrip("+~"))]
    body = word[len(sign) :]
    key, equals, value = body.partition("=")
    if equals:
        return [f"{sign}{key}={v}" for v in _values(known, key, value, config_dir)]
    if "." in body and "@" not in body:
        return [f"{sign}{path}" for path in _paths(known, given, body, config_dir)]
    names = [*known.groups, *known.keys]
    return [f"{sign}{name}=" for name in _starting(body, names)]


def _values(
    known: config_groups.Primary, key: str, value: str, config_dir: Path | None
) -> list[str]:
    """What can follow `key=`, after what is typed of it; inside lists and sweeps too."""
    cut = max(value.rfind(","), value.rfind("[")) + 1
    before, last = value[:cut], value[cut:]
    if key in known.groups:
        options = config_groups.list_groups(config_dir).get(key.split("@")[0], [])
        return [f"{before}{name}" for name in _starting(last, options)]
    if key == "run":
        return _runs(value, "")
    setting = known.keys.get(key)
    if setting is None:
        return []
    if isinstance(setting.value, bool):
        return [before + word for word in _starting(last, ["true", "false"])]
    # `name: a | b: explanation`
    first, *middle = setting.comment.split(" | ")
    listed = [first.rpartition(": ")[2], *middle]
    listed = [*listed[:-1], listed[-1].partition(": ")[0]]
    listed = [part.strip() for part in listed]
    listed = [part for part in listed if part.islower() or part[-1:].isdigit()]  # not `cuda:N`
    return [before + word for word in _starting(last, listed)] if len(listed) > 1 else []


def _paths(
    known: config_groups.Primary, given: list[str], word: str, config_dir: Path | None
) -> list[str]:
    """Settings below a group, as far as the word goes: `loss.kd.`, `student.widths=`."""
    chosen = dict(text.split("=", 1) for text in given if "=" in text)
    tree: dict[str, Any] = {}
    for name, default in known.groups.items():
        group, _, package = name.partition("@")
        choice = chosen.get(name, default)
        options = choice.strip("[]").split(",") if isinstance(choice, str) else choice or []
        node = tree
        for part in (package or group).split("."):
            if not isinstance(node.get(part), dict):  # a group that is null by default
                node[part] = {}
            node = node[part]
        for option in options:
            node |= config_groups.option_tree(group, str(option).strip(), config_dir)
        node |= {key: found.value for key, found in known.below.get(name, {}).items()}
    if "teacher" in tree:
        tree |= dict.fromkeys(_numbered(chosen), tree["teacher"])
    *parents, last = word.split(".")
    here: Any = tree
    for parent in parents:
        here = here.get(parent, {}) if isinstance(here, dict) else {}
    if not isinstance(here, dict):
        return []
    prefix = ".".join(parents)
    names = [name for name in here if not str(name).startswith("_")]
    ends = {name: "." if isinstance(here[name], dict) else "=" for name in names}
    return [f"{prefix}.{name}{ends[name]}" for name in _starting(last, names)]


def _numbered(chosen: dict[str, str]) -> list[str]:
    """`teacher1`, `teacher2`, ... for as many teachers as the line names."""
    listed = len(chosen.get("teacher", "").split(","))
    count = chosen.get("teacher.count", "1")
    given = int(count) if count.isascii() and count.isdecimal() and len(count) < 4 else 1
    return [f"teacher{number}" for number in range(1, max(listed, given) + 1)]


def _runs(word: str, prefix: str) -> list[str]:
    folders = [str(folder) for folder in run_index.run_folders()]
    return [f"{prefix}{folder}" for folder in _starting(word, folders)[:OFFERED]]


def _starting(word: str, options: list[str]) -> list[str]:
    return [option for option in options if option.startswith(word)]
