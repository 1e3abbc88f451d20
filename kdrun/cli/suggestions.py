"""One or two sentences for each mistake in a command: what is wrong, and what to type instead.

`check_names` looks at the words alone, `check_value` at a value's place in the composed
configuration, `check_composed` at what came out, `explain` at what Hydra could not compose.
"""

import re
from collections.abc import Collection
from typing import Any

from hydra.core.override_parser.types import Override

from kdrun.cli import choices, config_groups, verbs
from kdrun.cli.command_spec import (
    CommandSpec,
    full_key,
    is_hydra,
    near,
    value_text,
    values,
)
from kdrun.cli.grammar import shell_quoted, with_quoted_value
from kdrun.config.build import CHECKPOINT_WORDS
from kdrun.config.options import SHORT_NAMES
from kdrun.config.schema import SHARED_LOSS_SETTINGS, DistillConfig
from kdrun.config.settings import MISSING
from kdrun.config.shipped import config_folders
from kdrun.config.teachers import NUMBERED
from kdrun.errors import ConfigError
from kdrun.sweeps import launchers

# What other tools call these settings.
SYNONYMS = {
    "temperature": "T",
    "tau": "T",
    "temp": "T",
    "learning_rate": "lr",
    "batch": "batch_size",
    "bs": "batch_size",
    "num_epochs": "epochs",
    "max_epochs": "epochs",
    "random_seed": "seed",
    "amp": "precision",
    "model": "student",
    "data": "dataset",
    "losses": "loss",
}
RECIPE = ("epochs", "batch_size", "lr", "precision")


def check_names(spec: CommandSpec, overrides: list[Override]) -> None:
    """Raise ConfigError for mistakes that show in the overrides alone."""
    for override in overrides:
        if is_hydra(override):
            check_hydra(spec, override)
            continue
        if override.is_delete():
            _check_delete(spec, override)
        elif spec.is_group(override):
            choices.check(spec, override)
        else:
            _check_package(spec, override)
    _check_aliases(spec, overrides)


def _check_delete(spec: CommandSpec, override: Override) -> None:
    key = override.key_or_group
    required = key in spec.primary.keys or spec.primary.groups.get(full_key(override)) is not None
    if required:
        raise ConfigError(
            f"~{key}: {spec.verb} cannot do without {key}. Leave it out for its default, "
            f"or choose another: {key}=..."
        )


def _check_package(spec: CommandSpec, override: Override) -> None:
    """`teacher.schedule=x` chooses nothing: the group is spelt `schedule@teacher.schedule`."""
    for name in spec.primary.groups:
        group, _, package = name.partition("@")
        if package == override.key_or_group and not isinstance(override.value(), dict):
            if override.value() is None and spec.primary.groups[name] is None:
                continue  # nothing is chosen for it, as by default
            value = value_text(override)
            raise ConfigError(
                f"{package} is a group of settings. To choose one of {group} for it, type "
                f"{name}={value}."
            )


def _check_aliases(spec: CommandSpec, overrides: list[Override]) -> None:
    given = [o.key_or_group for o in overrides if not o.is_delete()]
    for short in given:
        for long in given:
            if _same_thing(spec.verb, short, long):
                raise ConfigError(
                    f"{short}= and {long}= are two names of one thing: give only one of them."
                )


def _same_thing(verb: str, short: str, long: str) -> bool:
    if verb == "distill":
        if short == "T":
            return long.startswith("loss.") and long.endswith(".temperature")
        if short == "alpha":
            return long in ("loss.kd.weight", "loss.logits.weight")
        return short in RECIPE and long == f"schedule.{short}"
    if verb == "train-teacher":
        if short == "seed":
            return long == "teacher.seed"
        return short in RECIPE and long == f"teacher.schedule.{short}"
    return False


def is_shared_loss_setting(override: Override) -> bool:
    """Whether it is a setting of every loss: `loss.ID.decay_after`, for example."""
    words = override.key_or_group.split(".")
    return len(words) == 3 and words[0] == "loss" and words[2] in SHARED_LOSS_SETTINGS


def check_value(spec: CommandSpec, tree: dict[str, Any], override: Override) -> None:
    """Raise ConfigError unless the setting exists; `tree` is the configuration it is set in."""
    words = override.key_or_group.split(".")
    node: Any = tree
    for depth, word in enumerate(words):
        if isinstance(node, list):
            return  # an item of a list, by position
        if not isinstance(node, dict):
            parent = ".".join(words[:depth])
            short = near(override.key_or_group, SHORT_NAMES)
            hint = f" Did you mean {short}?" if short else ""
            raise ConfigError(f"{parent} is a single value: it has no '{word}'.{hint}")
        if word not in node:
            if is_shared_loss_setting(override) and depth == 2:
                return
            raise ConfigError(_missing(spec, tree, words[:depth], word, override))
        node = node[word]
        if words[0] == "loss" and depth == 1 and isinstance(node, dict) and "_target_" not in node:
            rest = {name: value for name, value in tree["loss"].items() if name != word}
            raise ConfigError(_missing_loss(spec, rest, word))
    value = override.value()
    key = override.key_or_group
    if key == "teacher.weights" or isinstance(node, bool):
        check_weights(override)
    if isinstance(node, dict) and not isinstance(value, dict):
        if value is None and words[0] == "loss":
            raise ConfigError(f"To remove a loss from the objective, type ~{key}.")
        if value is not None and any(not name.startswith("_") for name in node):
            inside = ", ".join(f"{key}.{name}" for name in node if not name.startswith("_"))
            raise ConfigError(f"{key} is a group of settings; set one of {inside}.")


def _missing(
    spec: CommandSpec, tree: dict[str, Any], parents: list[str], word: str, override: Override
) -> str:
    weights = checkpoint_instead(override)
    if weights is not None:
        return weights
    if not parents:
        text = checkpoint_of_no_network(override, spec.primary.names())
        if text is not None:
            return text
        return _missing_top(spec, tree, word, override)
    parent = ".".join(parents)
    node: dict[str, Any] = tree
    for name in parents:
        node = node[name]
    if parents == ["loss"]:
        return _missing_loss(spec, node, word)
    own = [str(name) for name in node if not str(name).startswith("_")]
    start = f"There is no {parent}.{word}."
    match = near(word, own)
    if match is not None:
        return f"{start} Did you mean {parent}.{match} (={_shown(node[match])})?"
    if "_target_" in node:
        value = value_text(override)
        added = shell_quoted(f"+{override.key_or_group}={value}")
        has = f" It has: {', '.join(own)}." if own else ""
        target = node["_target_"]
        taker = "its class" if target == MISSING else target
        return f"{start}{has} If {taker} takes it as an argument, add it: {added}."
    return f"{start} It has: {', '.join(own)}."


def _missing_top(spec: CommandSpec, tree: dict[str, Any], word: str, override: Override) -> str:
    names = spec.primary.names()
    value = value_text(override)
    rest = override.key_or_group.removeprefix(word)
    start = f"There is no setting '{word}'."
    synonym = SYNONYMS.get(word.lower())
    match = near(word, names) or (synonym if synonym in names else None)
    if match is not None:
        return f"{start} Did you mean {match}{rest}={value}?"
    places = _leaves(tree)
    exact = [place for place in places if place.split(".")[-1] == word]
    leaf = near(word, {place.split(".")[-1] for place in places})
    found = exact or [place for place in places if leaf and place.split(".")[-1] == leaf]
    if found:
        shown = " or ".join(f"{place} (={_shown(places[place])})" for place in found[:3])
        return f"{start} Did you mean {shown}?"
    for verb, config_name in verbs.config_names().items():
        if word in config_groups.primary(config_name).names():
            start = f"'{word}' is a setting of {verb}, not of {spec.verb}."
            break
    return f"{start} {spec.verb} has: {', '.join(names)}."


def _missing_loss(spec: CommandSpec, chosen: dict[str, Any], word: str) -> str:
    options = spec.options("loss")
    both = ",".join([*map(str, chosen), word])
    if word in options:
        return f"{word} is not in the objective: choose it as well, 'loss=[{both}]'."
    match = near(word, chosen) or near(word, options)
    if match is None:
        return f"There is no loss '{word}'. Options: {', '.join(options)}."
    hint = f"There is no loss '{word}'. Did you mean loss.{match}?"
    if match not in chosen:
        hint += f" It has to be chosen first: 'loss=[{','.join([*map(str, chosen), match])}]'."
    return hint


def check_composed(spec: CommandSpec, tree: dict[str, Any], experiment: str | None) -> None:
    """Raise ConfigError for settings without a reader, and settings of losses not chosen."""
    text = repr(tree)
    roots = {group.split("@")[0] for group in spec.primary.groups}
    known = roots | set(spec.primary.keys) | {"hydra"}
    for name in tree:
        numbered = "teacher" in roots and NUMBERED.match(str(name))
        if name not in known and not numbered and f"${{{name}" not in text:
            match = near(str(name), spec.primary.names())
            meant = f" Did you mean {match}?" if match else ""
            raise ConfigError(f"There is no setting '{name}': nothing would read it.{meant}")
    losses = tree.get("loss")
    scheme = str((tree.get("scheme") or {}).get("name"))
    brought = config_groups.losses_in("scheme", scheme, spec.config_dir)
    if experiment is not None:  # those of a loss that does not exist are a mistake
        own = config_groups.losses_in("experiment", experiment, spec.config_dir)
        brought |= own & set(spec.options("loss"))
    for loss, node in (losses if isinstance(losses, dict) else {}).items():
        if isinstance(node, dict) and "_target_" not in node and loss not in brought:
            rest = {name: value for name, value in (losses or {}).items() if name != loss}
            raise ConfigError(_missing_loss(spec, rest, str(loss)))


def check_unused(config: DistillConfig, overrides: list[Override]) -> None:
    """Raise ConfigError for a teacher that was typed for a scheme which has none."""
    if config.scheme.uses_teacher is True:
        return
    for override in overrides:
        key, _, package = full_key(override).partition("@")
        roots = (key.split(".")[0], package.split(".")[0])
        if any(root == "teacher" or NUMBERED.match(root) for root in roots):
            who = "peers and" if config.scheme.peers else "the student itself and"
            raise ConfigError(
                f"'{override.input_line}' would change nothing: with scheme={config.scheme.name} "
                f"{who} the labels teach. Leave it out, or choose scheme=offline."
            )


def ambiguous(spec: CommandSpec, tree: dict[str, Any], override: Override) -> str:
    """What to type for `a=1,2` without -m."""
    key = full_key(override)
    text = override.input_line or key
    choices = values(spec, override)
    start = f"'{text}' names {len(choices)} values. To run once for each, add -m"
    value = value_text(override)
    current: Any = tree
    for word in override.key_or_group.split("."):
        current = current.get(word) if isinstance(current, dict) else None
    takes_list = isinstance(spec.primary.groups.get(key), list)
    if key == "teacher":
        return f"{start}; to let them teach together, type '{key}=[{value}]'."
    if takes_list:
        return f"{start}; to combine them in one objective, type '{key}=[{value}]'."
    if isinstance(current, list):
        return f"{start}; for a list, type '{key}=[{value}]'."
    if spec.is_group(override) or all(isinstance(choice, int | float) for choice in choices):
        return f"{start}."
    return f"{start}; if it is one text, quote it: {shell_quoted(with_quoted_value(text))}."


def explain(spec: CommandSpec, error: Exception) -> ConfigError:
    """Hydra's own message in one line, without its search path and its advice to use '+'."""
    for folder in config_folders(spec.config_dir):
        broken = config_groups.broken_yaml(folder)
        if broken is not None:
            return ConfigError(f"A configuration file cannot be read: {broken}.")
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    nothing = "A defaults list cannot be followed: look at the files in --config-dir"
    text = lines[0].rstrip(".") if lines else nothing
    missing = getattr(error, "missing_cfg_file", None)
    if isinstance(missing, str) and "/" in missing:
        group, name = config_groups.split_name(missing, spec.group_options)
        match = near(name, spec.options(group))
        options = ", ".join(spec.options(group))
        if match is not None:
            text += f". Did you mean '{match}'?"
        elif options:
            text += f". Options of {group}: {options}"
    foreign = re.match(r"In '(experiment/\S+)': Could not override '(.+?)'", text)
    if foreign is not None:
        text = (
            f"{foreign.group(1)} sets {foreign.group(2)}, which this verb does not have: it is "
            "written for kdrun distill, which trains its teacher first"
        )
    absent = re.search(r"Could not delete from config. '(.+)' does not exist", text)
    if absent is not None:
        text = f"~{absent.group(1)} removes nothing: {absent.group(1)} is not set"
    return ConfigError(text if text.endswith("?") else f"{text}.")


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted path → value of every setting, the networks' and losses' own included."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        if str(name).startswith("_") or path == "hydra":
            continue
        if isinstance(value, dict):
            found |= _leaves(value, f"{path}.")
        else:
            found[path] = value
    return found


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "{...}" if isinstance(value, dict) else str(value)


SUFFIXES = (".pth", ".pt", ".th", ".ckpt", ".bin", ".safetensors", ".tar", ".pkl")


def names_a_file(value: Any) -> bool:
    """Whether a value looks like the path of weights or of a run."""
    text = str(value).strip("'\"")
    return "/" in text or text.endswith(SUFFIXES)


def checkpoint_instead(override: Override) -> str | None:
    """The sentence for `student.weights=FILE` and the like, a setting that is not there."""
    value = value_text(override)
    place = _network_place(full_key(override).lstrip("+"), value)
    if place is None:
        return None
    role = "student" if place == "student" else "teacher"
    return (
        f"{override.key_or_group}={value} is not how weights are named: the file a {role} "
        f"starts from is {shell_quoted(f'{place}.checkpoint={value}')}."
    )


def checkpoint_of_no_network(override: Override, names: Collection[str]) -> str | None:
    """The sentence for `checkpoint=FILE` and the like, of no network in particular.

    names: the settings and groups of the verb.
    """
    key, value = full_key(override).lstrip("+"), value_text(override)
    word = key.lower().replace("-", "_")
    places = [place for place in ("student", "teacher") if place in names]
    if word not in (*CHECKPOINT_WORDS, "checkpoint") or not names_a_file(value) or not places:
        return None
    meant = " or ".join(
        f"{shell_quoted(f'{place}.checkpoint={value}')} for the {place}" for place in places
    )
    return f"There is no setting '{key}'. Weights from a file are those of a network: {meant}."


def check_weights(override: Override) -> None:
    """Raise ConfigError for a file given to a setting of the same name that takes none.

    `teacher.weights` counts teachers, and `pretrained` is true or false.
    """
    word = override.key_or_group.rpartition(".")[2]
    if word not in ("weights", "pretrained") or not names_a_file(value_text(override)):
        return
    text = checkpoint_instead(override)
    if text is not None:
        raise ConfigError(text)


def _network_place(key: str, value: str) -> str | None:
    """`student` or `teacher` where the setting is meant as the checkpoint of one."""
    root, dot, word = key.partition(".")
    if dot:
        is_network = root == "student" or root == "teacher" or NUMBERED.match(root)
        known = word.lower() in CHECKPOINT_WORDS and "." not in word
        # pretrained=true and weights=[1,2] are settings of their own
        other = word in ("pretrained", "weights") and not names_a_file(value)
        return root if is_network and known and not other else None
    low = key.lower().replace("-", "_")
    for who in ("student", "teacher"):
        rest = low.removeprefix(f"{who}_").removesuffix(f"_{who}")
        if rest != low and rest in (*CHECKPOINT_WORDS, "checkpoint"):
            return who
    return None


def check_hydra(spec: CommandSpec, override: Override) -> None:
    """Raise ConfigError for what of Hydra itself cannot be chosen."""
    if override.key_or_group == "hydra/sweeper":
        raise ConfigError(
            "kdrun's sweeps run every combination that is typed; another hydra/sweeper cannot be "
            "used. Leave it out, and list the values: -m T=1,4,20."
        )
    if override.key_or_group == "hydra/launcher":
        for name in values(spec, override):
            _check_launcher(spec, str(name))
    if override.key_or_group == "hydra.searchpath":
        raise ConfigError("Name the folder of your own options with --config-dir DIR instead.")


def _check_launcher(spec: CommandSpec, name: str) -> None:
    options = ["basic", *spec.options("hydra/launcher")]
    match = near(name, options)
    if name not in options and match is not None:
        raise ConfigError(f"There is no hydra/launcher '{name}'. Did you mean '{match}'?")
    launchers.require(name)


def check_single(spec: CommandSpec, overrides: list[Override]) -> None:
    """Raise ConfigError for a setting of sweeps in a command that runs once."""
    for override in overrides:
        key = override.key_or_group
        launches = key.replace("/", ".").startswith("hydra.launcher")
        if launches or spec.is_only_for_sweeps(override):
            raise ConfigError(
                f"{key} is for sweeps, and this command runs once: add -m and the values to try, "
                "or leave it out."
            )
