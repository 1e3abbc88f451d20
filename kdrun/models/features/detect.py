"""Detect the taps of networks that declare none, by running the network once.

Convolutional networks: a stage comprises all layers at one spatial size. Its tap is the input of
the first block that reduces this size; for the last stage, the last map before the classifier. A
size does not start a new stage if the network returns to an earlier one (squeeze-and-excitation),
if it differs by less than a quarter (convolutions without padding), or if only global pooling
produces it. A first stage of at most one convolution is the `stem`.

Transformers: the longest sequence of modules of one class that output tokens `[B, N, D]`, after the
last convolution, is divided into four stages of about equal length, or fewer for fewer blocks. The
tap is the last block of each stage.

The classifier is the last linear layer, or 1x1 convolution, with one output per class; its input is
the `embedding`. `stageI_pre` is the input of the activation that ends a stage, or the stage itself
if no activation ends it (residual sums, linear bottlenecks, tokens).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from kdrun.models.dry_run import logits_of, run_with_hook
from kdrun.models.features.hooks import INPUT_SUFFIX

MAX_TRANSFORMER_STAGES = 4

# Element by element; what comes before them is the pre-activation.
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.SELU,
    nn.GELU,
    nn.SiLU,
    nn.Mish,
    nn.Hardswish,
)

SAME_STAGE = 0.75  # two sizes with a larger ratio belong to one stage

# (module, class) → taps of channels-last architectures, whose shapes are misleading.
KNOWN: dict[tuple[str, str], dict[str, str]] = {
    ("torchvision.models.swin_transformer", "SwinTransformer"): {
        "stage1": "permute",  # output of the last stage as [B, C, H, W]
        "embedding": "head:in",
    },
    ("timm.models.swin_transformer", "SwinTransformer"): {"embedding": "head.fc:in"},
    ("timm.models.swin_transformer_v2", "SwinTransformerV2"): {"embedding": "head.fc:in"},
}

Size = tuple[int, ...]


@dataclass
class Step:
    """One module call: first input, output, and the output's version counter.

    dropped: the output is that of a dropout layer.
    """

    path: str
    module: nn.Module
    input: Tensor | None
    output: Tensor
    version: int
    dropped: bool

    @property
    def size(self) -> Size:
        """(H, W) of the output; empty if it is not a map."""
        return _size(self.output)

    @property
    def reduction(self) -> tuple[Size, Size]:
        """(H, W) of input and output."""
        return _size(self.input), _size(self.output)


def detect_taps(network: nn.Module, sample: Tensor) -> dict[str, str]:
    """Tap name → module path, from a run on the first image of `sample` `[B, C, H, W]`."""
    known = KNOWN.get((type(network).__module__, type(network).__name__))
    if known is not None:
        return dict(known)
    steps, num_classes = _run(network, sample[:1])
    classifier = _classifier(steps, num_classes)
    body = steps[:classifier]
    taps = _token_stages(network, body) or _map_stages(body)
    taps |= _before_activation(taps, body)
    if classifier is not None:
        taps["embedding"] = steps[classifier].path + INPUT_SUFFIX
    return taps


def _run(network: nn.Module, sample: Tensor) -> tuple[list[Step], int]:
    """Module calls in the order in which they finish, and the number of classes.

    Keeps all tensors alive so that they can be compared by identity.
    """
    steps: list[Step] = []
    dropped: set[int] = set()
    paths = {module: path for path, module in network.named_modules() if path}

    def record(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor):
            if "dropout" in type(module).__name__.lower():
                dropped.add(id(output))
            first = args[0] if args and isinstance(args[0], Tensor) else None
            is_dropped = id(output) in dropped
            steps.append(Step(paths[module], module, first, output, output._version, is_dropped))

    logits = logits_of(run_with_hook(network, sample, record, paths))
    return steps, logits.shape[1]


def _classifier(steps: Sequence[Step], num_classes: int) -> int | None:
    """Position of the classifier among the steps."""
    for position in reversed(range(len(steps))):
        module = steps[position].module
        if isinstance(module, nn.Linear) and module.out_features == num_classes:
            return position
        if (
            isinstance(module, nn.Conv2d)
            and module.out_channels == num_classes
            and module.kernel_size == (1, 1)
        ):
            return position
    return None


def _before_activation(taps: dict[str, str], steps: Sequence[Step]) -> dict[str, str]:
    """`stageI_pre`: the input of the activation a stage ends in; without one, the stage itself."""
    last = {step.path: position for position, step in enumerate(steps)}
    found = {}
    for name, path in taps.items():
        if not name.startswith("stage"):
            continue
        tensor = _tensor_at(path, steps)
        found[f"{name}_pre"] = path
        for position, step in enumerate(steps):
            if (
                step.output is tensor
                and isinstance(step.module, ACTIVATIONS)
                and last[step.path] == position  # a tap reads the last call of its module
            ):
                found[f"{name}_pre"] = step.path + INPUT_SUFFIX
                break
    return found


def _tensor_at(path: str, steps: Sequence[Step]) -> Tensor | None:
    """The tensor that a tap reads."""
    inner = path.removesuffix(INPUT_SUFFIX)
    step = next(step for step in reversed(steps) if step.path == inner)
    return step.input if path != inner else step.output


def _token_stages(network: nn.Module, steps: Sequence[Step]) -> dict[str, str]:
    """Taps of a network that ends in transformer blocks; empty for other networks."""
    convolutions = [i for i, step in enumerate(steps) if isinstance(step.module, nn.Conv2d)]
    after = convolutions[-1] if convolutions else -1
    makes_tokens = {step.path for step in steps[after + 1 :] if step.output.dim() == 3}
    blocks: list[str] = []
    for path, module in network.named_modules():
        if not isinstance(module, nn.Sequential | nn.ModuleList):
            continue
        children = [f"{path}.{name}" if path else name for name, _ in module.named_children()]
        same = len({type(child) for child in module.children()}) == 1
        if same and len(children) > max(1, len(blocks)) and makes_tokens.issuperset(children):
            blocks = children
    count = min(MAX_TRANSFORMER_STAGES, len(blocks))
    return {f"stage{i}": blocks[len(blocks) * i // count - 1] for i in range(1, count + 1)}


def _map_stages(steps: Sequence[Step]) -> dict[str, str]:
    """Taps of a network with feature maps `[B, C, H, W]` of decreasing size."""
    groups = _size_groups(steps)
    ends = [_before_reduction(steps, a[-1], b[0]) for a, b in pairwise(groups)]
    ends += [_last_at(steps, group[-1]) for group in groups[-1:]]
    names = [end.path for end in ends if end is not None]
    taps = {}
    if len(names) > 1 and ends[0] is not None and _convolutions_until(steps, ends[0]) <= 1:
        taps["stem"] = names.pop(0)
    return taps | {f"stage{i}": name for i, name in enumerate(names, 1)}


def _size_groups(steps: Sequence[Step]) -> list[list[Size]]:
    """The sizes of each stage, in network order."""
    conv_sizes = {step.size for step in steps if isinstance(step.module, nn.Conv2d)}
    last = {step.size: position for position, step in enumerate(steps) if _is_candidate(step)}
    ordered: list[Size] = []
    for size in sorted(conv_sizes & last.keys(), key=lambda size: -last[size]):
        if not ordered or math.prod(size) > math.prod(ordered[-1]):
            ordered.append(size)
    groups: list[list[Size]] = []
    for size in reversed(ordered):
        if groups and size[0] > SAME_STAGE * groups[-1][-1][0]:
            groups[-1].append(size)
        else:
            groups.append([size])
    if len(groups) > 1 and _only_pooled(steps, groups[-2][-1], groups[-1][0]):
        groups.pop()
    return groups


def _before_reduction(steps: Sequence[Step], size: Size, following: Size) -> Step | None:
    """The step that produces the input of the outermost block from `size` to `following`.

    A Sequential counts as a sequence of blocks. None if that input comes from pooling, so that no
    layer computes at this size.
    """
    blocks = [
        step
        for step in steps
        if step.reduction == (size, following) and not isinstance(step.module, nn.Sequential)
    ]
    paths = {step.path for step in blocks}
    outermost = [step for step in blocks if not _inside(step.path, paths)]
    if not outermost:
        return _last_at(steps, size)
    block = outermost[-1]
    producers = [step for step in steps if step.output is block.input]
    if producers and _pools(producers[0].module):
        return None
    usable = [step for step in producers if _is_candidate(step)]
    return usable[-1] if usable else replace(block, path=block.path + INPUT_SUFFIX)


def _last_at(steps: Sequence[Step], size: Size) -> Step:
    return next(step for step in reversed(steps) if step.size == size and _is_candidate(step))


def _is_candidate(step: Step) -> bool:
    """Whether a stage may end here: not at pooling, dropout, or a tensor modified later."""
    changed = step.output._version != step.version
    return not (changed or step.dropped or _pools(step.module))


def _only_pooled(steps: Sequence[Step], size: Size, following: Size) -> bool:
    """Whether only global pooling reduces `size` to one pixel."""
    reducing = [step.module for step in steps if step.reduction == (size, following)]
    return math.prod(following) == 1 and not any(isinstance(m, nn.Conv2d) for m in reducing)


def _convolutions_until(steps: Sequence[Step], end: Step) -> int:
    """Number of convolutions before the tensor of `end` exists."""
    path = end.path.removesuffix(INPUT_SUFFIX)
    before = steps[: [step.path for step in steps].index(path) + 1]
    within = {path} if path != end.path else set()
    return sum(
        isinstance(step.module, nn.Conv2d) and not _inside(f"{step.path}.", within)
        for step in before
    )


def _inside(path: str, paths: set[str]) -> bool:
    """Whether `path` lies inside one of `paths`; `PATH.` counts as inside `PATH`."""
    parts = path.split(".")
    return any(".".join(parts[:i]) in paths for i in range(1, len(parts)))


def _pools(module: nn.Module) -> bool:
    return "pool" in type(module).__name__.lower()


def _size(tensor: Tensor | None) -> Size:
    return tuple(tensor.shape[2:]) if tensor is not None and tensor.dim() == 4 else ()
