"""Settings without effect, derived from the settings that optimisers and LR schedules declare.

A setting that the chosen optimiser or schedule does not read has no effect. If it was typed, the
command is rejected; if it comes from a preset, the run header lists it. Teacher fingerprints leave
it out for the same reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kdrun.config.schema import (
    DistillConfig,
    ScheduleConfig,
    TeacherConfig,
    TeacherRuntimeConfig,
    named_teachers,
)
from kdrun.config.settings import defaults_of
from kdrun.recipes.lr_schedules import LR_SCHEDULES
from kdrun.recipes.optimizers import OPTIMIZERS


@dataclass(frozen=True)
class Unused:
    """A setting without effect. because: the setting that decides. instead: values that read it."""

    name: str
    value: Any
    because: str
    instead: str

    def __str__(self) -> str:
        value = str(self.value).lower() if isinstance(self.value, bool) else self.value
        return f"{self.name}={value} has no effect with {self.because}: {self.instead} reads it"


def unread_keys(schedule: ScheduleConfig) -> set[str]:
    """The fields that the schedule's optimizer and curve do not read."""
    return {key for key, _, _ in _unread(schedule)}


def unused_settings(config: Any) -> list[Unused]:
    """All settings of a typed configuration that have no effect, default or not."""
    found: list[Unused] = []
    if isinstance(config, DistillConfig):
        found += _of_schedule("schedule", config.schedule)
    teachers: tuple[TeacherConfig, ...] = getattr(config, "teachers", ())
    for where, teacher in named_teachers(teachers):
        found += _of_schedule(f"{where}.schedule", teacher.schedule)
        if teacher.runtime.cache == "off":
            size = teacher.runtime.cache_gb
            cache = f"{where}.cache"
            found.append(Unused(f"{where}.cache_gb", size, f"{cache}=off", f"{cache}=auto"))
    return found


def changed(config: Any) -> list[Unused]:
    """The unused settings that differ from the schema's defaults."""
    defaults = defaults_of(ScheduleConfig) | defaults_of(TeacherRuntimeConfig)
    return [one for one in unused_settings(config) if one.value != defaults[_key(one)]]


def _of_schedule(where: str, schedule: ScheduleConfig) -> list[Unused]:
    return [
        Unused(f"{where}.{key}", getattr(schedule, key), f"{where}.{because}", f"{where}.{readers}")
        for key, because, readers in _unread(schedule)
    ]


def _unread(schedule: ScheduleConfig) -> Iterator[tuple[str, str, str]]:
    """(field, the choice that does not read it, choices that do)."""
    for registry in (OPTIMIZERS, LR_SCHEDULES):
        choice = registry.setting
        chosen = getattr(schedule, choice)
        for key in registry.optional_settings():
            if key not in registry.reads(chosen):
                readers = " or ".join(registry.readers(key))
                yield key, f"{choice}={chosen}", f"{choice}={readers}"
    if not schedule.early_stopping:
        yield "early_stopping_metric", "early_stopping=0", "early_stopping=10"
    if schedule.ce_kind != "bce":
        for key in ("ce_threshold", "ce_sum"):
            yield key, f"ce_kind={schedule.ce_kind}", "ce_kind=bce"


def _key(unused: Unused) -> str:
    return unused.name.rpartition(".")[2]
