"""Which blocks of a network to remove (`student.depth`).

A stage is what a container holds of one class and with one output shape. Containers nest: stages of
blocks, blocks of layers. Blocks are the innermost children of which a stage has several that keep
the shape of their input.
"""

import copy
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.models.dry_run import dry_run, run_with_hook
from kdrun.models.pruned import keep_blocks

Shapes = dict[nn.Module, tuple[torch.Size, torch.Size]]


class CannotPruneError(ConfigError):
    """The network has nothing of this kind to remove, whatever the share."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one class and one output shape in the container at `path`.

    numbers: their places in the container. removable: those that keep the shape of their input.
    layers: weights of each block.
    """

    path: str
    kind: type[nn.Module]
    numbers: list[int]
    removable: list[int]
    layers: int

    def removed(self, depth: float) -> list[int]:
        """The share `depth` of the blocks. Those that stay, at least one, are spread evenly."""
        most = len(self.removable) - (self.numbers == self.removable)
        left = len(self.removable) - min(round(len(self.numbers) * depth), most)
        spread = {self.removable[len(self.removable) * i // left] for i in range(left)}
        return [number for number in self.removable if number not in spread]

    @property
    def pattern(self) -> str:
        """The path without its numbers: equal for the stages of one kind of container."""
        return re.sub(r"\d+", "#", self.path)


def removable_blocks(network: nn.Module, sample: Tensor, depth: float) -> dict[str, list[int]]:
    """The blocks to keep: container path → indices, at least one block of each stage.

    sample: `[B, C, H, W]`. Raises CannotPruneError if the network has no blocks that can be
    removed, ConfigError if the share is too small for them.
    """
    found = _stages(network, sample)
    if not found:
        raise CannotPruneError(
            f"student.depth={depth:g} removes no block: this network has no stage with several "
            "equal blocks."
        )
    stages = _of_blocks([stage for stage in found if _runs_without(network, sample, stage)])
    kept = _kept(network, stages, depth)
    if not stages or not _runs(network, sample, kept):
        raise CannotPruneError(
            "The blocks of this network cannot be removed: its forward pass needs each of them, by "
            "name, by number or because of its shape."
        )
    if not kept:
        shares = [share / 100 for share in range(1, 100)]
        least = next(share for share in shares if _kept(network, stages, share))
        raise ConfigError(
            f"student.depth={depth:g} removes no block: of the {_longest(stages)} blocks of the "
            f"longest stage, it rounds to none. The smallest share that removes one is {least:g}."
        )
    return kept


def _longest(stages: list[Stage]) -> int:
    return max(len(stage.numbers) for stage in stages)


def _stages(network: nn.Module, sample: Tensor) -> list[Stage]:
    """All stages of several blocks, of which one or more can be removed."""
    shapes = _input_and_output_shapes(network, sample)
    stages = []
    for path, container in network.named_modules():
        if not isinstance(container, nn.Sequential | nn.ModuleList):
            continue
        alike: dict[tuple[type[nn.Module], torch.Size], list[int]] = {}
        children = list(container)
        for number, child in enumerate(children):
            if child in shapes and _is_block(child):
                alike.setdefault((type(child), shapes[child][1]), []).append(number)
        for (kind, shape), numbers in alike.items():
            removable = [n for n in numbers if shapes[children[n]][0] == shape]
            if len(numbers) > 1 and removable:
                layers = _layers(children[removable[0]])
                stages.append(Stage(path, kind, numbers, removable, layers))
    return stages


def _is_block(module: nn.Module) -> bool:
    """Whether it consists of layers and has a weight; normalisations have vectors only."""
    return bool(list(module.children())) and _layers(module) > 0


def _layers(module: nn.Module) -> int:
    return sum(parameter.dim() > 1 for parameter in module.parameters())


def _of_blocks(stages: list[Stage]) -> list[Stage]:
    """The stages of the innermost level that has several equal blocks somewhere.

    A convolution of an inverted residual may keep its shape too, but only one of each block does.
    Without such a level: the outermost stages, if possible of blocks of several layers.
    """
    equal = [stage for stage in stages if len(stage.removable) > 1]
    if not equal:
        larger = [stage for stage in stages if stage.layers > 1] or stages
        return [s for s in larger if not any(_inside(s.path, other.path) for other in larger)]
    blocks = [s for s in equal if not any(_inside(other.path, s.path) for other in equal)]
    kinds, patterns = {s.kind for s in blocks}, {s.pattern for s in blocks}
    return [
        stage
        for stage in stages
        if (stage.kind in kinds or stage.pattern in patterns)
        and not any(_inside(s.path, stage.path) or _inside(stage.path, s.path) for s in blocks)
    ]


def _inside(path: str, container: str) -> bool:
    return path != container and (not container or path.startswith(f"{container}."))


def _kept(network: nn.Module, stages: list[Stage], depth: float) -> dict[str, list[int]]:
    """Container path → numbers that stay, of the containers that lose blocks."""
    lost: dict[str, list[int]] = {}
    for stage in stages:
        lost.setdefault(stage.path, []).extend(stage.removed(depth))
    return {
        path: [n for n, _ in enumerate(network.get_submodule(path).children()) if n not in numbers]
        for path, numbers in lost.items()
        if numbers
    }


def _runs_without(network: nn.Module, sample: Tensor, stage: Stage) -> bool:
    count = len(list(network.get_submodule(stage.path).children()))
    kept = [number for number in range(count) if number != stage.removable[-1]]
    return _runs(network, sample, {stage.path: kept})


def _runs(network: nn.Module, sample: Tensor, blocks: dict[str, list[int]]) -> bool:
    """Whether the forward pass works with these blocks alone."""
    shorter = copy.deepcopy(network)
    keep_blocks(shorter, blocks)
    try:
        with dry_run(shorter):
            shorter(sample)
    except Exception:  # networks may raise anything where a block is missing
        return False
    return True


def _input_and_output_shapes(network: nn.Module, sample: Tensor) -> Shapes:
    shapes: Shapes = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
            shapes[module] = (inputs[0].shape, output.shape)

    run_with_hook(network, sample, record, network.modules())
    return shapes
