"""Semantic calibration: Chen et al., AAAI 2021, arXiv 2012.03236."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.losses.adapters import AdapterNorm
from kdrun.losses.base import DistillationLoss, LossContext, TapRequest
from kdrun.losses.shapes import map_pairs, to_smaller, unit
from kdrun.ranges import Channels, Positive
from kdrun.types import Batch, Outputs

Maps = dict[str, Tensor]


class SemanticCalibration(DistillationLoss):
    """Every student layer learns from all teacher layers, by learned attention.

    For each pair of a student map i and a teacher map j: the larger is averaged down to the
    smaller, a bottleneck of three convolutions gives the student's map the teacher's width, d_ij =
    mean squared difference for each image. Attention of image n: Q_i = unit(MLP_i(row n of the
    Gram matrix `[B, B]` of the student's flattened map i)), K_j likewise of the teacher's map j,
    a_ij = softmax over j of Q_i · K_j / `softness` (eq. 3-6). Loss: Σ_ij a_ij d_ij, mean over
    the student's layers and the batch (eq. 7). weight: 10. The authors' code uses 400 for CIFAR
    networks, 240 epochs and a learning rate of 0.05, and adds kd with weight 1:
    `'loss=[kd,semckd]' loss.semckd.weight=400 loss.kd.weight=1 ce=1 schedule=cifar240`. At the
    default learning rate of 0.1, 400 outweighs the labels and diverges.

    The input width of the MLPs is the training batch size. The last, smaller batch of an epoch,
    which the authors' code drops, is zero-padded; a larger one is truncated.

    As a criterion: lists of any two lengths; batches larger than the one it was built for are
    truncated.

    taps: `stages_crossed` pairs all stages of both networks; of other requests all student taps
    are paired with all teacher taps. reduction: the MLPs' width is the batch size divided by it.
    softness: of the attention, above 0.
    Raises ConfigError for other values.

    Compares the samples of a batch: `batch_size` images, also with `schedule.accumulate`.
    """

    id = "semckd"
    full_name = "Semantic calibration"
    crosses_pairs = True
    formula = (
        "Σ_j a_ij · mean (r_ij(f_i) - f_j)², a_i = softmax over j of Q_i · K_j; sum over the "
        "teacher's layers j, mean over the student's i and the batch"
    )
    source = "Chen et al. 2021, AAAI, arXiv 2012.03236, eq. 3-7"
    compares_samples = True

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("stages_crossed",),
        reduction: Channels = 4,
        softness: Positive = 1.0,
    ) -> None:
        super().__init__(taps)
        self.reduction = reduction
        self.softness = softness
        self.rows = 0
        self.queries = nn.ModuleList()
        self.keys = nn.ModuleList()
        self.bottlenecks = nn.ModuleList()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        students, teachers = self._maps(student, teacher)
        self.rows = context.batch_size
        width = max(self.rows // self.reduction, 1)
        self.queries = nn.ModuleList(embedder(self.rows, width) for _ in students)
        self.keys = nn.ModuleList(embedder(self.rows, width) for _ in teachers)
        self.bottlenecks = nn.ModuleList(
            bottleneck(s.shape[1], t.shape[1]) for s in students.values() for t in teachers.values()
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from features of all taps."""
        students, teachers = self._maps(student, teacher)
        distances = self._distances(list(students.values()), list(teachers.values()))
        attention = self._attention(list(students.values()), list(teachers.values()))
        return (attention * distances).sum() / (len(students) * len(batch))

    def _maps(self, student: Outputs, teacher: Outputs) -> tuple[Maps, Maps]:
        """Maps `[B, C, H, W]` of the student's and the teacher's taps, each once."""
        students, teachers = {}, {}
        pairs = map_pairs(self, student, teacher)
        for (s_name, t_name), (s, t) in zip(self.pairs, pairs, strict=True):
            students[s_name], teachers[t_name] = s, t
        return students, teachers

    def _distances(self, students: list[Tensor], teachers: list[Tensor]) -> Tensor:
        """`[B, student layers, teacher layers]`."""
        layers = iter(self.bottlenecks)
        distances = []
        for s in students:
            for t in teachers:
                source, target = to_smaller(s, t)
                distances.append((next(layers)(source) - target).square().flatten(1).mean(dim=1))
        return torch.stack(distances, dim=1).unflatten(1, (len(students), len(teachers)))

    def _attention(self, students: list[Tensor], teachers: list[Tensor]) -> Tensor:
        """`[B, student layers, teacher layers]`, of sum 1 over the teacher's."""
        queries, keys = (
            torch.stack(
                [
                    unit(layer(gram(features, self.rows)), dim=1)
                    for layer, features in zip(layers, maps, strict=True)
                ],
                dim=1,
            )
            for layers, maps in ((self.queries, students), (self.keys, teachers))
        )
        return (queries @ keys.mT / self.softness).softmax(dim=2)

    def symbol(self) -> str:
        if not self.pairs:  # the layers are only known after `setup`
            return "SemCKD"
        students, teachers = (list(dict.fromkeys(names)) for names in zip(*self.pairs, strict=True))
        return f"SemCKD({'+'.join(students)} × {'+'.join(teachers)})"


def gram(features: Tensor, columns: int) -> Tensor:
    """Inner products `[B, columns]` of maps `[B, ...]`, filled up with zeros or cut."""
    flat = features.flatten(1)
    return F.pad(flat @ flat.T, (0, columns - len(flat)))


def embedder(in_features: int, width: int) -> nn.Sequential:
    """Two linear layers, `[B, in_features]` → `[B, width]`."""
    return nn.Sequential(nn.Linear(in_features, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))


def bottleneck(in_channels: int, out_channels: int) -> nn.Sequential:
    """1×1, 3×3 and 1×1 convolutions of twice the width between: `[B, in]` → `[B, out]` maps."""
    middle = 2 * out_channels
    return nn.Sequential(
        nn.Conv2d(in_channels, middle, 1, bias=False),
        AdapterNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, middle, 3, padding=1, bias=False),
        AdapterNorm(middle),
        nn.ReLU(),
        nn.Conv2d(middle, out_channels, 1, bias=False),
    )
