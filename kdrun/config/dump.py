"""From the typed configuration back to the plain form that `kdrun.config.parse` reads.

A run's `config.yaml` is written through this: every value is the effective one, and reading it
gives the same configuration again. Nodes derive from the schema (`kdrun.config.convert`).
"""

from typing import Any

from kdrun.config import schema
from kdrun.config.augment import from_crop_flip
from kdrun.config.convert import to_plain
from kdrun.config.rules import RECIPE
from kdrun.config.settings import keys_of, settings_of


def distill_plain(config: schema.DistillConfig) -> dict[str, Any]:
    """Plain containers for `parse.distill_config`."""
    # a teacher that the scheme trains itself is not written
    chosen = config.teachers if config.scheme.uses_teacher is True else ()
    return {
        "dataset": dataset_plain(config.dataset),
        **teachers_plain(chosen, config.ensemble),
        "student": {**to_plain(config.student), **start_plain(config.start)},
        "loss": {name: _loss(loss) for name, loss in config.loss.items()},
        "schedule": to_plain(config.schedule),
        **_augment(config),
        "scheme": _scheme(config.scheme),
        "logger": to_plain(config.logger),
        **_single_settings(config),
        **_recipe(config.schedule),
        **to_plain(config.runtime),
    }


def train_teacher_plain(config: schema.TrainTeacherConfig) -> dict[str, Any]:
    """Plain containers for `parse.train_teacher_config`."""
    first = config.teachers[0]
    return {
        "dataset": dataset_plain(config.dataset),
        **teachers_plain(config.teachers),
        "logger": to_plain(config.logger),
        "val_fraction": config.val_fraction,
        "seed": first.seed,
        **_recipe(first.schedule),
        **to_plain(config.runtime),
    }


def benchmark_plain(config: schema.BenchmarkConfig) -> dict[str, Any]:
    """Plain containers for `parse.benchmark_config`."""
    return {**distill_plain(config.distill), **_single_settings(config)}


def evaluate_plain(config: schema.EvaluateConfig) -> dict[str, Any]:
    """Plain containers for `parse.evaluate_config`."""
    single = _single_settings(config)
    return {
        "run": single.pop("run"),
        "dataset": None if config.dataset is None else dataset_plain(config.dataset),
        **single,
        **_weights(config.bare),
        **to_plain(config.runtime),
    }


def dataset_plain(config: schema.DatasetConfig) -> dict[str, Any]:
    """Plain containers for `parse.dataset_config`."""
    return to_plain(config)


def start_plain(start: schema.StartConfig | None) -> dict[str, Any]:
    """Plain containers for `parse.start_config`; empty for random initial weights."""
    return {} if start is None else to_plain(start)


def teachers_plain(
    teachers: tuple[schema.TeacherConfig, ...],
    ensemble: schema.EnsembleConfig | None = None,
) -> dict[str, Any]:
    """The nodes `teacher`, `teacher1`, `teacher2`, ..., each of them complete."""
    if not teachers:
        return {"teacher": None}
    first = to_plain(teachers[0])
    nodes = {"teacher": first if ensemble is None else {**first, **to_plain(ensemble)}}
    if len(teachers) > 1:
        nodes["teacher"]["checkpoint"] = None  # one teacher's weights are not those of all
        for key in (*keys_of(schema.TeacherInput), "start", "new_classifier"):
            nodes["teacher"].pop(key, None)
        nodes |= {f"teacher{number}": to_plain(one) for number, one in enumerate(teachers, 1)}
    return nodes


def _augment(config: schema.DistillConfig) -> dict[str, Any]:
    """The node `augment`; left out while it is the data set's usual crops and flips."""
    if config.augment == from_crop_flip(config.dataset.augment):
        return {}
    return {"augment": to_plain(config.augment)}


def _single_settings(config: Any) -> dict[str, Any]:
    """The declared settings of a verb's dataclass, those of the runtime left out."""
    kept = [each for each in settings_of(type(config)) if each.is_declared and not each.meta.inline]
    return to_plain(config, only=tuple(each.name for each in kept))


def _weights(config: schema.TeacherConfig | None) -> dict[str, Any]:
    """How a file without a card is read; nothing where there is none."""
    if config is None:
        return {}
    size = None if config.image_size is None else list(config.image_size)
    return {"teacher": {**to_plain(config.network), "image_size": size, **to_plain(config.input)}}


def _loss(config: schema.LossConfig) -> dict[str, Any]:
    plain = to_plain(config)
    del plain["id"]
    arguments = {key: plain.pop(key) for key in config.kwargs}  # written last
    return {**plain, **arguments}


def _scheme(config: schema.SchemeConfig) -> dict[str, Any]:
    plain = to_plain(config)
    if config.rounds is not None:  # a chain has assistants, born-again networks generations
        absent = keys_of(schema.RoundsConfig)[1:] if config.rounds.assistants else ("assistants",)
        plain = {key: value for key, value in plain.items() if key not in absent}
    return plain


def _recipe(schedule: schema.ScheduleConfig) -> dict[str, Any]:
    return {key: getattr(schedule, key) for key in RECIPE}
