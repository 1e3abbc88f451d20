"""Which outputs of a teacher are the classes of a data set, and in which order."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from kdrun.config.schema import TeacherInput
from kdrun.data.class_order import class_orders
from kdrun.errors import ConfigError, did_you_mean

SHOWN = 5


@dataclass(frozen=True)
class Outputs:
    """A teacher's output units.

    count: number of outputs. names: of all outputs, or None if unknown.
    where: prefix of the teacher's settings (`teacher2`). source: where the names come from.
    """

    count: int
    names: tuple[str, ...] | None
    where: str = "teacher"
    source: str = ""


def permutation(names: Sequence[str], classes: Sequence[str]) -> tuple[int, ...]:
    """The output of each class, where `names` are those of the outputs and hold every class."""
    place = {name: number for number, name in enumerate(names)}
    return tuple(place[name] for name in classes)


def chosen_outputs(
    given: TeacherInput, classes: Sequence[str], outputs: Outputs
) -> tuple[int, ...] | None:
    """The teacher's output for each class of the data set; None: all of them, in its order.

    Raises ConfigError for settings that do not fit the classes or the outputs.
    """
    names = _names(given, classes, outputs)
    if given.classes is not None:
        if given.class_order is not None and isinstance(given.class_order, str):
            raise ConfigError(
                f"{outputs.where}.class_order={given.class_order} sorts the data set's class "
                f"names, but {outputs.where}.classes lists the outputs explicitly: set only one."
            )
        found = _by_classes(given.classes, classes, names, outputs)
    elif given.class_order is not None:
        assert names is not None
        found = _by_names(classes, names, outputs)
    elif outputs.count != len(classes):
        raise _other_count(classes, outputs)
    elif outputs.names is not None and set(outputs.names) == set(classes):
        found = permutation(outputs.names, classes)
    else:
        return None
    return None if found == tuple(range(outputs.count)) else found


def format_mapping(
    found: Sequence[int] | None, classes: Sequence[str], names: Sequence[str] | None
) -> str:
    """`cat ← 281 (tabby), dog ← 207 (golden retriever), ...` for the head of a run."""
    if found is None:
        return "in the order of the data set's classes"
    pairs = []
    for name, number in list(zip(classes, found, strict=True))[:SHOWN]:
        known = f" ({names[number]})" if names is not None and names[number] != name else ""
        pairs.append(f"{name} ← {number}{known}")
    return ", ".join(pairs) + (", ..." if len(classes) > SHOWN else "")


def shown(names: Sequence[str | int]) -> str:
    """The first names, and how many there are if there are more."""
    text = ", ".join(str(name) for name in names[:SHOWN])
    return text + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")


def list_setting(key: str, values: Sequence[object]) -> str:
    """`'teacher.classes=[a,"b c"]'`, as it is typed in a shell."""
    words = [str(v) if re.fullmatch(r"[\w.+-]+", str(v)) else _quoted(str(v)) for v in values]
    return shlex.quote(f"{key}=[{','.join(words)}]")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _names(given: TeacherInput, classes: Sequence[str], outputs: Outputs) -> tuple[str, ...] | None:
    """The names of all outputs, as far as anything says them."""
    order = given.class_order
    if order is None or (isinstance(order, str) and given.classes is not None):
        return outputs.names
    if isinstance(order, str):
        if outputs.count != len(classes):
            raise ConfigError(
                f"{outputs.where}.class_order={order} orders the {len(classes)} classes of the "
                f"data set, and the teacher has {outputs.count} outputs: name the outputs, "
                f"{outputs.where}.classes=[...], or give all {outputs.count} names, "
                f"{outputs.where}.class_order=names.txt."
            )
        return class_orders(classes)[order]
    if len(order) != outputs.count:
        raise ConfigError(
            f"{outputs.where}.class_order names {len(order)} outputs ({shown(order)}), and the "
            f"teacher has {outputs.count}: give the name of every output, in their order."
        )
    return order


def _by_names(classes: Sequence[str], names: Sequence[str], outputs: Outputs) -> tuple[int, ...]:
    """Every class of the data set is looked up among the names of the outputs."""
    missing = [name for name in classes if _find(name, names) is None]
    first_words = [name.split()[0] for name in names]  # `n01440764 tench, Tinca tinca`
    if missing and set(classes) <= set(first_words):
        names, missing = first_words, []
    if missing:
        hint = did_you_mean(missing[0], names)
        raise ConfigError(
            f"{outputs.where}.class_order has no {shown(missing)}, which the data set has: use "
            f"the data set's names, or say which outputs they are, {outputs.where}.classes=[...]."
            f"{hint}"
        )
    found = tuple(number for name in classes if (number := _find(name, names)) is not None)
    _refuse_twice(found, classes, f"{outputs.where}.class_order")
    return found


def _by_classes(
    chosen: Sequence[str | int],
    classes: Sequence[str],
    names: Sequence[str] | None,
    outputs: Outputs,
) -> tuple[int, ...]:
    setting = f"{outputs.where}.classes"
    if len(chosen) != len(classes):
        raise ConfigError(
            f"{setting} names {len(chosen)} outputs, and the data set has {len(classes)} classes: "
            f"give one output for each, in the order {shown(classes)}."
        )
    if set(chosen) == set(classes):  # its very classes, in whatever order
        chosen = classes
    for name, entry in zip(classes, chosen, strict=True):
        if entry in classes and entry != name:
            raise ConfigError(
                f"{setting} gives the output {entry!r} to the class {name!r}, and the data set has "
                f"a class {entry!r} itself: list the outputs in the order {shown(classes)}."
            )
    found = tuple(_number(entry, names, outputs) for entry in chosen)
    _refuse_twice(found, classes, setting)
    return found


def _number(entry: str | int, names: Sequence[str] | None, outputs: Outputs) -> int:
    """The number of one output."""
    setting = f"{outputs.where}.classes"
    if isinstance(entry, int):
        if not 0 <= entry < outputs.count:
            raise ConfigError(
                f"{setting} has {entry}: the teacher has {outputs.count} outputs, numbered from 0 "
                f"to {outputs.count - 1}."
            )
        if names is not None and str(entry) in names and names[entry] != str(entry):
            raise ConfigError(
                f"{setting}: {entry} may be output number {entry}, which is named "
                f"{names[entry]!r}, or the output named '{entry}': type its name in quotes, "
                f"'{setting}=[\"{names[entry]}\",...]' or '{setting}=[\"{entry}\",...]'."
            )
        return entry
    if names is None:
        raise ConfigError(
            f"{setting} has the name {entry!r}, but the names of the teacher's {outputs.count} "
            f"outputs are unknown: give their numbers, or all names in order, "
            f"{outputs.where}.class_order=names.txt."
        )
    number = _find(entry, names)
    if number is None:
        same = [place for place, name in enumerate(names) if _plain(name) == _plain(entry)]
        if len(same) > 1:
            raise ConfigError(
                f"{setting}: the outputs {', '.join(map(str, same))} are all named {entry!r}: give "
                "the number."
            )
        hint = did_you_mean(entry, names)
        source = f" ({outputs.source})" if outputs.source else ""
        raise ConfigError(f"{setting}: no output of the teacher is named {entry!r}{source}.{hint}")
    return number


def _find(name: str, names: Sequence[str]) -> int | None:
    """The output of that name: exact, or else alike but for case and separators; None: no one."""
    exact = [place for place, other in enumerate(names) if other == name]
    alike = exact or [place for place, other in enumerate(names) if _plain(other) == _plain(name)]
    return alike[0] if len(alike) == 1 else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def _refuse_twice(found: Sequence[int], classes: Sequence[str], setting: str) -> None:
    for number in found:
        if found.count(number) > 1:
            both = [c for c, other in zip(classes, found, strict=True) if other == number]
            raise ConfigError(
                f"{setting} assigns output {number} to both {both[0]!r} and {both[1]!r}: each "
                "class needs a different output."
            )


def _other_count(classes: Sequence[str], outputs: Outputs) -> ConfigError:
    """The teacher knows another number of classes; what to type, if the names show it."""
    names = outputs.names
    numbers = [_find(name, names) for name in classes] if names is not None else [None]
    setting = f"{outputs.where}.classes"
    if outputs.count < len(classes):
        return ConfigError(
            f"The teacher has {outputs.count} outputs, and the data set has {len(classes)} classes "
            f"({shown(classes)}): a teacher must know every class; choose another one."
        )
    if names is not None and None not in numbers:
        what = list_setting(setting, list(classes))
        known = f" They are among its names: type {what}." if len(classes) <= 20 else ""
    else:
        known = ""
    return ConfigError(
        f"The teacher has {outputs.count} outputs, and the data set has {len(classes)} classes: "
        f"say which output is which class, '{setting}=[...]', one number or name each, in the "
        f"order {shown(classes)}.{known}"
    )
