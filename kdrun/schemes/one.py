"""On-the-fly native ensemble (ONE): a shared trunk, several branches, and a gate over them.

Source: Lan, Zhu and Gong 2018, arXiv 1806.04606.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.base import full_precision
from kdrun.losses.objective import Objective
from kdrun.models.features.pairs import expand_tap
from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.split import Branch, Recording, check_branch, find_cut, make_branch
from kdrun.schemes.base import StudentScheme, Value, step_output
from kdrun.schemes.context import SchemeContext, pooled, require_logits
from kdrun.schemes.measured import AuxiliaryModel
from kdrun.seeds import derive
from kdrun.types import Batch, Outputs, StepOutput


def one(given: SchemeContext, branches: int = 3, split: str | None = None) -> "NativeEnsemble":
    """The layers up to a tap are shared; the layers after it are replicated as branches.

    The ensemble's logits are Σ_i g_i · z_i with g = softmax(ReLU(BN(W · f))), where f is the shared
    tensor averaged over space (section 3.1). What is minimised is, with `loss=kd`,
    ce · (Σ_i CE_i + CE_ensemble) + weight · T² · Σ_i KL(p_ensemble ‖ p_i) (section 3.2). In the
    last sum the ensemble is a constant: it teaches and is not taught. Other losses on logits can
    take the place of the KL. The plain student is the trunk with branch 1.

    branches: how many, at least 2. The first begins as the student alone would, the others with
    weights of their own.
    split: tap after which the branches begin; null: only the last stage is replicated.
    Raises ConfigError for networks without such a tap, and for losses that read more than logits.
    """
    require_logits(given.objective, "one", "the branches share only logits")
    if branches < 2:
        raise ConfigError(
            f"scheme.branches={branches} must be at least 2: the branches teach each other."
        )
    if given.compiled:
        raise ConfigError(
            "scheme=one passes tensors from the trunk to the branches at run time, which "
            "compile=true does not support: set compile=false."
        )
    tap = _split_tap(given, split)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(given.sample.shape, generator=draw).to(given.sample)
    network = given.student.network
    cut = find_cut(network, images, tap, given.student.paths.get(tap, tap))
    recording = Recording(network, cut)
    twin = given.another(1).network
    twin.load_state_dict(network.state_dict())
    check_branch(network, make_branch(twin, recording), recording, images)
    others = [make_branch(given.another(i).network, recording) for i in range(2, branches + 1)]
    student = given.student.extractor([tap])
    output = given.dry(student)
    given.build_losses(given.objective, (given.student, given.student), (output, output), "one")
    torch.manual_seed(derive(given.seed, "gate"))
    gate = Gate(pooled(output.features[tap]).shape[1], branches).to(given.sample.dtype)
    return NativeEnsemble(student, given.objective, tap, others, recording, gate)


class Gate(nn.Module):
    """Weights of the branches for each image: softmax(ReLU(BN(W · f)))."""

    def __init__(self, width: int, branches: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, branches)
        self.norm = AdapterNorm(branches)

    def forward(self, features: Tensor) -> Tensor:
        """Shared features → weights `[B, branches]`, each row with sum 1."""
        scores = self.norm(self.linear(pooled(features))[:, :, None, None])
        return full_precision(scores[:, :, 0, 0].relu()).softmax(dim=1)


class NativeEnsemble(StudentScheme):
    """A student with replicated last layers; branch 1 is saved."""

    def __init__(
        self,
        student: FeatureExtractor,
        objective: Objective,
        tap: str,
        branches: Sequence[Branch],
        recording: Recording,
        gate: Gate,
    ) -> None:
        super().__init__(student, objective)
        self.tap = tap
        self.branches = nn.ModuleList(branches)
        self.gate = gate
        self._recording = recording

    def answers(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """(logits `[B, C]` of each branch, logits of the ensemble)."""
        output: Outputs = self._recording.run(self.student, images)
        logits = [output.logits, *(branch(images) for branch in self.branches)]
        self._recording.forget()
        weights = self.gate(output.features[self.tap])
        every = torch.stack([full_precision(one) for one in logits], dim=1)
        return logits, (weights[:, :, None] * every).sum(dim=1)

    def forward(self, batch: Batch) -> StepOutput:
        """The branches' losses and the ensemble's."""
        logits, ensemble = self.answers(batch.images)
        teacher = Outputs(ensemble.detach())
        values: list[Value] = []
        for number, own in enumerate(logits, start=1):
            _, parts = self.objective(Outputs(own), [teacher], batch)
            values.append((f"branch{number}_", parts, self.objective.weigh(parts)))
        parts = {"ce": self.objective.ce(Outputs(ensemble), teacher, batch)}
        values.append(("ensemble_", parts, self.objective.weigh(parts)))
        return step_output(logits[0], values)

    def describe(self) -> str:
        """The objective of one branch, and of the ensemble."""
        count = len(self.branches) + 1
        branch = f"for each of {count} branches after {self.tap}: {self.objective.describe()}"
        labels = f"{self.objective.ce_weight:g}*{self.objective.ce.symbol()}"
        return f"{branch}; for their gated ensemble: {labels}"

    def companions(self) -> list[AuxiliaryModel]:
        """The other branches, and the ensemble."""
        found = [
            AuxiliaryModel("branches", f"branch {number}", _Answer(self, number - 1))
            for number in range(2, len(self.branches) + 2)
        ]
        name = f"gated ensemble of {len(self.branches) + 1} branches"
        return [*found, AuxiliaryModel("ensemble", name, _Answer(self, None))]


class _Answer(nn.Module):
    """Logits of one branch, for evaluation. number: from 0; None: the ensemble."""

    def __init__(self, scheme: NativeEnsemble, number: int | None) -> None:
        super().__init__()
        self.scheme = scheme
        self.number = number

    def forward(self, images: Tensor) -> Tensor:
        logits, ensemble = self.scheme.answers(images)
        return ensemble if self.number is None else logits[self.number]


def _split_tap(given: SchemeContext, split: str | None) -> str:
    """The tap where the branches begin."""
    if split is not None:
        return expand_tap(split, given.student.paths, "student")[-1]
    stages = expand_tap("stages", given.student.paths, "student")
    if len(stages) < 2:
        raise ConfigError(
            f"{given.student.config.name} has a single stage ({stages[0]}), so nothing would be "
            "shared: name the tap or module after which the branches begin, scheme.split=..."
        )
    return stages[-2]
