"""Students that are cut from their teacher (`student=pruned`): architecture and initial weights.

The architecture is derived once, before the run folder is written, and is part of the run's
configuration: evaluation, export and resume do not prune again. The initial weights are those of
the trained teacher without the removed channels and blocks, in a file below `outputs/pruned`. The
baseline starts from the same weights, so that the gain measures the distillation.
"""

import copy
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from kdrun.config.rules import PRUNED
from kdrun.config.schema import DistillConfig, StartConfig
from kdrun.data.dataset import Dataset
from kdrun.distillation.generations import plan_generations
from kdrun.distillation.loaded_teacher import load_teacher
from kdrun.distillation.networks import new_network
from kdrun.distillation.prepare import PreparedRun, baseline_fingerprint
from kdrun.distillation.teacher import Teacher
from kdrun.distillation.teacher_recipe import teacher_entry
from kdrun.engine import distributed
from kdrun.errors import ConfigError
from kdrun.files import canonical_hash, make_folder, sha256_of, write_atomically
from kdrun.models.build import sample_images
from kdrun.models.card import NetworkCard
from kdrun.models.pruned import TEACHER, keep_blocks
from kdrun.models.pruning import prune_channels
from kdrun.own_code import code_entry
from kdrun.weights.load import classifier_parameters


def starts_from_teacher(config: DistillConfig) -> bool:
    """Whether the student is cut from its teacher and keeps the teacher's weights."""
    student = config.student
    if student.target != PRUNED or not config.teachers or config.start is not None:
        return False
    return bool(student.kwargs.get("init", TEACHER) == TEACHER)


@dataclass(frozen=True)
class PrunedSource:
    """The trained teacher that is cut. path: its weights."""

    network: nn.Module
    card: NetworkCard
    path: Path


def with_pruned_start(run: PreparedRun, teachers: list[Teacher]) -> PreparedRun:
    """The run with the pruned teacher's weights as `student.checkpoint`, if it needs them.

    The first of several teachers is pruned. Raises ConfigError if its input is not the student's.
    """
    if not starts_from_teacher(run.config):
        return run
    dataset, say = run.transfer.dataset, run.session.reporter.say
    source = PrunedSource(teachers[0].network, teachers[0].card, teachers[0].path)
    path = run.session.output_root / "pruned" / _file_name(run.config, source)
    with distributed.main_first():
        if not path.exists():
            _require_same_input(source, dataset, say)
            _write_weights(path, run.config, source, dataset)
    say(f"  the student starts from the pruned teacher's weights ({path})")
    config = replace(run.config, start=StartConfig(str(path)))
    run.folder.result.update(pruned_from={"teacher": str(source.path), "weights": str(path)})
    return replace(
        run,
        config=config,
        digest=baseline_fingerprint(config, dataset),
        generations=plan_generations(config),
    )


def known_start(
    config: DistillConfig, dataset: Dataset, output_root: Path, folder: Path
) -> DistillConfig | None:
    """The configuration with the weights it will start from, for a dry run.

    None while the teacher is untrained. folder: for weights that do not exist yet.
    """
    teacher = config.teachers[0]
    if teacher.checkpoint is not None:
        loaded = load_teacher(teacher, dataset)
        source = PrunedSource(loaded.network, loaded.card, loaded.path)
    else:
        entry = teacher_entry(teacher, config.dataset, dataset, output_root)
        if not entry.is_filled():
            return None
        network, card = entry.load()
        source = PrunedSource(network, card, entry.weights)
    name = _file_name(config, source)
    path = output_root / "pruned" / name
    if not path.exists():
        path = folder / name
        _require_same_input(source, dataset)
        _write_weights(path, config, source, dataset)
    return replace(config, start=StartConfig(str(path)))


def _file_name(config: DistillConfig, source: PrunedSource) -> str:
    key = {
        "student": config.student.kwargs,
        "teacher": sha256_of(source.path),
        "outputs": source.card.outputs,
        **code_entry(config.student.kwargs),
    }
    return f"{source.card.name}-{canonical_hash(key)[:16]}.safetensors"


def _write_weights(
    path: Path, config: DistillConfig, source: PrunedSource, dataset: Dataset
) -> None:
    make_folder(path.parent)
    write_atomically(path, save(_pruned_weights(config, source, dataset)))


def _require_same_input(
    source: PrunedSource, dataset: Dataset, say: Callable[[str], None] = lambda text: None
) -> None:
    card, info = source.card, dataset.info
    if card.resized is not None or card.info.in_channels != info.in_channels:
        raise ConfigError(
            "student=pruned keeps the first layers of its teacher, which takes other images than "
            "the data set's: leave out teacher.image_size and teacher.channels, or set "
            "student.init=random."
        )
    if card.normalisation != dataset.normalisation:
        say(
            "  the teacher has other normalisation constants than the data set; the pruned student "
            "takes the data set's"
        )


def _pruned_weights(
    config: DistillConfig, source: PrunedSource, dataset: Dataset
) -> dict[str, Tensor]:
    """The teacher's state without the removed channels and blocks, in the student's shapes."""
    student, settings = config.student, config.student.kwargs
    network: nn.Module = copy.deepcopy(source.network).cpu()
    keep_blocks(network, settings.get("blocks") or {})
    if settings.get("widths"):
        images = torch.randn(
            sample_images(network, dataset.info).shape, generator=torch.Generator().manual_seed(0)
        )
        ratio, importance = settings["ratio"], settings.get("importance", "magnitude")
        network = prune_channels(network, images, ratio, importance)
    state = {name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()}
    plain = replace(student, quantize=None)  # ranges are observed in training
    wanted = new_network(plain, dataset, config.seed, "student").state_dict()
    if source.card.outputs is not None:
        count = source.card.built_for.num_classes
        rows = classifier_parameters(network, count)
        state = _for_classes(state, rows, wanted, source.card.outputs)
    assert {k: v.shape for k, v in state.items()} == {k: v.shape for k, v in wanted.items()}
    return state


def _for_classes(
    state: dict[str, Tensor],
    classifier: Collection[str],
    wanted: dict[str, Tensor],
    outputs: tuple[int, ...],
) -> dict[str, Tensor]:
    """The state with the classifier's rows of the data set's classes, in their order."""
    fitted = {}
    for name, tensor in state.items():
        other_size = tensor.dim() and len(tensor) != len(wanted[name])
        fitted[name] = tensor[list(outputs)] if name in classifier or other_size else tensor
    return fitted
