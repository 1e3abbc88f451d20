"""`kdrun show`: an option's YAML and its documentation, or a run's result in brief."""

import re
from pathlib import Path
from typing import Any

from kdrun.checksums import find_fault
from kdrun.cli import config_groups, docstrings, help
from kdrun.cli.columns import columns
from kdrun.cli.output import say
from kdrun.cli.parser import parse
from kdrun.config.shipped import config_folders
from kdrun.errors import EXIT_DONE, ConfigError, closest
from kdrun.report.metrics_table import AGREEMENT, GAIN, TEST
from kdrun.report.records import Run, read_object
from kdrun.runs.reading import is_run_folder, read_run
from kdrun.runs.result import Measured, NetworkResult, RunResult

ORDER = 120
SUMMARY = "print an option's YAML and documentation, or a run's result"

USAGE = "kdrun show GROUP/NAME | NAME | RUN_FOLDER"
ABOUT = (
    "Prints an option's YAML and the documentation of its class, or a summary of a run's result."
)
EXAMPLES = (
    ("kdrun show loss/sp", "a loss: its settings, formula and source"),
    ("kdrun show teacher/resnet56", "a teacher: the network and every teacher.* setting"),
    ("kdrun show cifar240", "an option by its name alone"),
    ("kdrun show outputs/distill/digits/...", "a run"),
)


def run(argv: list[str]) -> int:
    """Print what `argv` names."""
    args = parse("show", argv)
    if len(args.words) != 1:
        raise ConfigError("show takes one name: kdrun show loss/sp, or a run's folder.")
    name = args.words[0]
    folder = Path(name)
    if folder.is_dir() and (is_run_folder(folder) or _card(folder) is not None):
        say(show_run(folder))
    else:
        say(show_option(*find(name, args.config_dir), args.config_dir))
    return EXIT_DONE


# Groups whose options have further settings in common.
SHARED_KEYS = ("teacher", "student", "dataset")


def find(name: str, config_dir: Path | None) -> tuple[str, str]:
    """(group, option) for `group/option`, `group=option` or an option's name alone."""
    known = config_groups.list_groups(config_dir)
    wanted = name.removesuffix(".yaml").replace("=", "/").strip("/")
    group, option = config_groups.split_name(wanted, known)
    if group and option in known[group]:
        return group, option
    everything = [f"{g}/{o}" for g, options in known.items() for o in options]
    if group:
        hint = closest(option, known[group])
        meant = f" Did you mean '{group}/{hint}'?" if hint else ""
        raise ConfigError(
            f"There is no {group} '{option}'.{meant} Options: {', '.join(known[group])}."
        )
    places = [
        g for g, options in known.items() if wanted in options and g not in config_groups.INTERNAL
    ]
    if len(places) == 1:
        return places[0], wanted
    if places:
        choices = " or ".join(f"kdrun show {place}/{wanted}" for place in places)
        raise ConfigError(f"'{wanted}' is an option of {len(places)} groups: {choices}.")
    if wanted in known:
        raise ConfigError(f"'{wanted}' is a group: kdrun ls {wanted} lists its options.")
    if Path(name).exists():
        raise ConfigError(f"{name} holds no result.json: it is not a run's folder.")
    last = {place.rpartition("/")[2]: place for place in everything}
    match = closest(wanted, everything) or last.get(closest(wanted, last) or "")
    meant = f" Did you mean '{match}'?" if match else ""
    raise ConfigError(f"There is neither an option nor a run '{name}'.{meant} kdrun ls lists both.")


def show_option(group: str, name: str, config_dir: Path | None) -> str:
    """The YAML of an option and of the files it includes, and the docstrings of its targets."""
    path = config_groups.option_path(group, name, config_dir)
    assert path is not None
    parts = []
    targets: list[str] = []
    for file in (path, *_bases(path, config_dir)):
        text = file.read_text(encoding="utf-8", errors="replace").rstrip()
        parts.append(f"# {file}\n{text}")
        targets += re.findall(r"^\s*_target_:\s*([\w.]+\.\w+)", text, re.MULTILINE)
    for target in dict.fromkeys(targets):
        about = docstrings.docstring(target)
        parts.append(f"{target}\n\n{about}" if about else f"{target} (no documentation found)")
    if group in SHARED_KEYS:
        settings = "\n".join(help.common_settings("distill", group))
        parts.append(f"Settings of every {group}:\n{settings}")
    if group == "loss" and name != "ce":
        parts.append("Settings of every loss:\n" + "\n".join(help.loss_settings(name)))
    return "\n\n".join(parts)


def _bases(path: Path, config_dir: Path | None) -> list[Path]:
    """The files an option takes over whole: `/model/x@_here_`, or a sibling in its folder."""
    content = path.read_text(encoding="utf-8", errors="replace")
    head = re.search(r"^defaults:\n((?:\s*-.*\n?)*)", content, re.MULTILINE)
    found = []
    for entry in re.findall(r"^\s*-\s*(\S+)\s*$", head.group(1) if head else "", re.MULTILINE):
        bare = entry.removesuffix("@_here_")
        for root in config_folders(config_dir):
            file = root / bare.lstrip("/") if bare.startswith("/") else path.parent / bare
            file = file.with_name(f"{file.name}.yaml")
            if file.is_file() and file not in found:
                found.append(file)
    return found


def show_run(folder: Path) -> str:
    """What a run's result.json (or a teacher's card) says, in brief."""
    fault = read_run(folder).fault or find_fault(folder, ["teacher.json"])
    if fault:
        raise ConfigError(fault)
    values = read_object(folder / "result.json") or _card(folder) or {}
    if not values:
        raise ConfigError(f"{folder}/result.json cannot be read.")
    result = RunResult.from_dict(values, check=False)
    rows = [(key, _text(values[key])) for key in _FACTS if values.get(key) not in (None, [], {})]
    rows += [("data set", result.dataset.name)] if result.dataset.name else []
    text = columns([("folder", str(folder)), *rows])
    networks = _networks(result)
    if networks:
        header = ("", TEST.title, "errors", "parameters")
        text += "\n\n" + columns([header, *networks])
    run = Run(folder, result, result.status or "")
    after = [
        f"{label}: {metric.show(value)}{unit}"
        for label, metric, unit in (("gain", GAIN, " points"), (AGREEMENT.title, AGREEMENT, " %"))
        if (value := metric.read(run)) is not None
    ]
    return text + ("\n\n" + "\n".join(after) if after else "")


_FACTS = (
    "status",
    "error",
    "command",
    "objective",
    "seed",
    "epochs",
    "device",
    "precision",
    "name",
)


def _card(folder: Path) -> dict[str, Any] | None:
    values = read_object(folder / "teacher.json")
    if not values:
        return None
    extra = values.get("extra")
    extra = extra if isinstance(extra, dict) else {}
    network = {
        "name": values.get("name"),
        "params": values.get("params"),
        "test": extra.get("test"),
    }
    return {"name": values.get("name"), "status": "completed", "teachers": [network]}


def _networks(result: RunResult) -> list[tuple[str, ...]]:
    """A row for each network that was measured on the test split."""
    named: list[tuple[str, Measured]] = [
        (f"teacher {teacher.name or ''}", teacher) for teacher in result.teachers
    ]
    student = result.student
    named += [
        (f"student {student.name or ''}", student),
        (f"  best validation epoch ({student.best_val.epoch})", student.best_val),
        (f"  {student.ema.title}", student.ema),
        ("  student alone", result.alone),
    ]
    rows = []
    for label, network in named:
        if network.test.top1 is not None:
            params = network.params if isinstance(network, NetworkResult) else None
            counts = ["-" if x is None else f"{int(x):,}" for x in (network.test.errors, params)]
            rows.append((label.rstrip(), TEST.with_unit(network.test.top1), *counts))
    return rows


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
