"""Typed settings without effect: rejected if no job of the command reads them."""

from collections.abc import Iterable
from typing import Any

from hydra.core.override_parser.types import Override

from kdrun.config import unused
from kdrun.config.unused import Unused
from kdrun.errors import ConfigError


def check_effect(configs: Iterable[Any], overrides: list[Override]) -> None:
    """Raise ConfigError for an override that has no effect in any of the jobs' configurations."""
    jobs = [_Ignored(config) for config in configs]
    for override in overrides:
        ignored = [job.setting(override.key_or_group) for job in jobs]
        if ignored and all(ignored):
            raise ConfigError(f"{ignored[0]}. Leave it out, or set that.")


class _Ignored:
    """The settings of one job that have no effect."""

    def __init__(self, config: Any) -> None:
        self.teachers = len(getattr(config, "teachers", ()))
        self.by_name: dict[str, Unused] = {one.name: one for one in unused.changed(config)}

    def setting(self, key: str) -> Unused | None:
        """The one called `key`; `teacher.x` stands for `teacher1.x`, `teacher2.x` and so on."""
        head, _, rest = key.partition(".")
        if key in self.by_name or head != "teacher" or self.teachers < 2:
            return self.by_name.get(key)
        each = [self.by_name.get(f"teacher{n}.{rest}") for n in range(1, self.teachers + 1)]
        return each[0] if all(each) else None
