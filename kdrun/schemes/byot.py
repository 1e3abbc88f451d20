"""Be your own teacher (BYOT): exits after each stage learn from the last classifier.

Source: Zhang, Song, Gao, Chen, Bao and Ma 2019, arXiv 1905.08094.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.base import full_precision
from kdrun.losses.objective import Objective
from kdrun.models.features.pairs import expand_tap
from kdrun.models.features.taps import FeatureExtractor
from kdrun.ranges import NotNegative
from kdrun.schemes.base import StudentScheme, Value, step_output
from kdrun.schemes.context import SchemeContext, pooled, require_logits
from kdrun.schemes.measured import AuxiliaryModel, mean_logits
from kdrun.seeds import derive
from kdrun.types import Batch, Outputs, StepOutput


def byot(
    given: SchemeContext, exits: Sequence[str] | None = None, hint_weight: NotNegative = 0.03
) -> "BeYourOwnTeacher":
    """Shallow exits learn from labels, from the last classifier, and from its input features.

    An exit is a bottleneck that brings a stage's map to the size of the last stage's and to the
    width of the classifier's input, a mean over space, and a classifier. What is minimised is, with
    `loss=kd` (section 3.2, eqs. 1-4): CE_last + Σ_i [(1-α) · CE_i + α · T² · KL(p_last ‖ p_i)
    + λ · ‖F_i - F_last‖²], where the last classifier is detached in the losses of the exits. F_i is
    the input `[B, D]` of an exit's classifier; the squared distance is summed over D and averaged
    over the batch. Other losses on logits can replace the KL. The plain student has no exits.

    exits: taps that an exit follows; null: every stage but the last.
    hint_weight: λ.
    Raises ConfigError for networks without such taps, and for losses that read more than logits.
    """
    require_logits(given.objective, "byot", "exits and last classifier are compared by logits")
    if hint_weight < 0:
        raise ConfigError(f"scheme.hint_weight={hint_weight:g} must not be negative.")
    given.objective.require_own_ce("byot")
    taps, last = _taps(given, exits)
    student = given.student.extractor([*dict.fromkeys([*taps, last])], embedding=True)
    output = given.dry(student)
    given.build_losses(given.objective, (given.student, given.student), (output, output), "byot")
    assert output.embedding is not None
    width = output.embedding.shape[1]
    torch.manual_seed(derive(given.seed, "exits"))
    heads = [
        Exit(output.features[tap], output.features[last], width, given.num_classes) for tap in taps
    ]
    heads = [head.to(given.sample.dtype) for head in heads]
    return BeYourOwnTeacher(student, given.objective, taps, heads, hint_weight, given.compiled)


class Exit(nn.Module):
    """From a stage's tensor to (features `[B, D]`, logits `[B, C]`)."""

    def __init__(self, shallow: Tensor, last: Tensor, width: int, num_classes: int) -> None:
        super().__init__()
        self.body = _body(shallow, last, width)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        embedding = pooled(self.body(features))
        return embedding, self.classifier(embedding)


class BeYourOwnTeacher(StudentScheme):
    """A student with exits, which are trained with it and not saved."""

    def __init__(
        self,
        student: FeatureExtractor,
        objective: Objective,
        taps: Sequence[str],
        exits: Sequence[Exit],
        hint_weight: float,
        compiled: bool = False,
    ) -> None:
        super().__init__(student, objective, compiled)
        self.taps = tuple(taps)
        self.exits = nn.ModuleList(exits)
        self.hint_weight = hint_weight

    def answers(
        self, images: Tensor, run: Callable[[Tensor], Outputs] | None = None
    ) -> tuple[Outputs, list[tuple[Tensor, Tensor]]]:
        """(the student's outputs, (features, logits) of each exit)."""
        output = (self.student if run is None else run)(images)
        found = [
            leave(output.features[tap]) for tap, leave in zip(self.taps, self.exits, strict=True)
        ]
        return output, found

    def forward(self, batch: Batch) -> StepOutput:
        """The losses of the last classifier and of every exit."""
        output, found = self.answers(batch.images, self._run_student[0])
        last = output.detached()
        assert last.embedding is not None
        ce = {"ce": self.objective.ce(output, last, batch)}
        values: list[Value] = [("", ce, ce)]
        for number, (features, logits) in enumerate(found, start=1):
            _, parts = self.objective(Outputs(logits), [last], batch)
            distance = full_precision(features) - full_precision(last.embedding)
            hint = distance.square().sum(dim=1).mean()
            weighed = {**self.objective.weigh(parts), "hint": self.hint_weight * hint}
            values.append((f"exit{number}_", {**parts, "hint": hint}, weighed))
        return step_output(output.logits, values)

    def describe(self) -> str:
        """The objective of the last classifier, and of one exit."""
        hint = f" + {self.hint_weight:g}*|F-F_last|²" if self.hint_weight else ""
        exits = ", ".join(self.taps)
        last = f"1*{self.objective.ce.symbol()}"
        return f"{last}; for each exit ({exits}): {self.objective.describe()}{hint}"

    def companions(self) -> list[AuxiliaryModel]:
        """Every exit, and the ensemble of all classifiers."""
        found = [
            AuxiliaryModel("exits", f"exit at {tap}", _Answer(self, number))
            for number, tap in enumerate(self.taps)
        ]
        name = f"ensemble of {len(self.taps) + 1} classifiers"
        return [*found, AuxiliaryModel("ensemble", name, _Answer(self, None))]


class _Answer(nn.Module):
    """Logits of one exit, for evaluation. number: None: the ensemble."""

    def __init__(self, scheme: BeYourOwnTeacher, number: int | None) -> None:
        super().__init__()
        self.scheme = scheme
        self.number = number

    def forward(self, images: Tensor) -> Tensor:
        output, found = self.scheme.answers(images)
        if self.number is not None:
            return found[self.number][1]
        return mean_logits([output.logits, *(logits for _, logits in found)], 1.0)


def _taps(given: SchemeContext, exits: Sequence[str] | None) -> tuple[list[str], str]:
    """(the taps that exits follow, the last stage)."""
    paths = given.student.paths
    stages = expand_tap("stages", paths, "student")
    if exits is None:
        if len(stages) < 2:
            raise ConfigError(
                f"{given.student.config.name} has a single stage ({stages[0]}), which ends in the "
                "classifier: name the taps or modules that exits follow, scheme.exits=[...]"
            )
        return stages[:-1], stages[-1]
    if not exits:
        raise ConfigError(
            "scheme.exits=[] has no exit to train: name taps, or use null for all stages but the "
            "last."
        )
    return [tap for name in exits for tap in expand_tap(name, paths, "student")], stages[-1]


def _body(shallow: Tensor, last: Tensor, width: int) -> nn.Module:
    """Bottlenecks from a map to about the last map's size; a layer for vectors and tokens."""
    if shallow.dim() != 4:
        return nn.Sequential(nn.Linear(shallow.shape[-1], width), nn.ReLU())
    channels, size = shallow.shape[1], shallow.shape[2]
    target = last.shape[2] if last.dim() == 4 else size
    halvings = max(round(math.log2(size / target)), 0) if target else 0
    blocks = [_bottleneck(channels, width, 2 if halvings else 1)]
    blocks += [_bottleneck(width, width, 2) for _ in range(halvings - 1)]
    return nn.Sequential(*blocks)


def _bottleneck(channels: int, width: int, stride: int) -> nn.Sequential:
    """1×1 to a quarter of the width, 3×3, 1×1; each with normalisation and ReLU."""
    inner = max(width // 4, 1)
    layers: list[nn.Module] = []
    for convolution in (
        nn.Conv2d(channels, inner, 1, bias=False),
        nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False),
        nn.Conv2d(inner, width, 1, bias=False),
    ):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, AdapterNorm(convolution.out_channels), nn.ReLU()]
    return nn.Sequential(*layers)
