"""Contrastive representation distillation: Tian, Krishnan & Isola, ICLR 2020, arXiv 1910.10699."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, require_variant
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.negatives import NegativeSampler
from kdrun.losses.shapes import unit
from kdrun.ranges import Channels, Count, Positive, Share
from kdrun.types import Batch, Outputs


class ContrastiveDistillation(DistillationLoss):
    """Contrast each embedding with the other network's, of the same image and of other images.

    e = unit(linear layer of width `dim`) of each network's embedding. Two memories M_s and M_t
    `[N, dim]`, N images of the transfer set, start uniform in ±√(3 / dim). The anchor e_s meets
    the rows of M_t for its own image and for K negatives of other classes; h = exp(e · m / τ) / Z,
    where Z = N · mean of exp(e · m / τ) over the first batch, and stays. Loss of one side:
    -[log h₊ / (h₊ + K/N) + Σ_K log (K/N) / (h₋ + K/N)], mean over the batch (eq. 9, 17 and 18);
    the same of e_t with M_s is added. After the step the images' rows become
    unit(momentum · m + (1 - momentum) · e). weight: 0.8 (§4; with kd:
    `'loss=[kd,crd]' loss.kd.weight=1 ce=1`).

    The scores of all N rows are one matrix product, of which the drawn ones are taken; the two
    memories, in the checkpoint, take 2 · N · dim floats, the scores 2 · B · N for each step. The
    negatives are K different images; where a class has fewer than K others they are drawn with
    replacement, as the authors' code does. Draws follow from the run's seed and the step alone.

    As a criterion: `ContrastiveDistillation(labels=train_labels)` has a memory row per training
    image, and `loss(student_embedding, teacher_embedding, targets, indices)` takes the positions of
    the images in `labels`. The rows of a batch are updated before the next call, or by
    `loss.after_step()`.

    negatives: K. temperature is fixed by `tau`, not by T. momentum: in [0, 1).
    variant: see `variants`.
    labels, seed: `[N]` class numbers of the training images, and the seed of the draws; in runs
    those of the transfer set.
    Raises ConfigError for other values, and for a transfer set of one class.
    """

    id = "crd"
    full_name = "Contrastive representation distillation"
    formula = (
        "-log h₊ / (h₊ + K/N) - Σ_K log (K/N) / (h₋ + K/N), h = exp(e · m / τ) / Z, m from a "
        "memory of the other network's embeddings; mean over the batch, both sides"
    )
    source = "Tian, Krishnan & Isola 2020, ICLR, arXiv 1910.10699, §3, eq. 9-18"
    reads_labels = True
    variants = {  # noqa: RUF012
        "exact": "the positive is the image itself",
        "relax": "the positive is any image of its class",
    }
    reads_embedding = True
    reads_indices = True
    python_only = ("labels", "seed")
    step: Tensor

    def __init__(
        self,
        dim: Channels = 128,
        negatives: Count = 16384,
        tau: Positive = 0.07,
        momentum: Share = 0.5,
        variant: str = "exact",
        labels: Tensor | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require_variant(type(self), variant)
        self.dim = dim
        self.negatives = negatives
        self.tau = tau
        self.momentum = momentum
        self.variant = variant
        self.embed_student: nn.Module = nn.Identity()
        self.embed_teacher: nn.Module = nn.Identity()
        self.student_side: nn.Module = nn.Identity()
        self.teacher_side: nn.Module = nn.Identity()
        self.sampler: nn.Module = nn.Identity()
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self._seen: tuple[Tensor, Tensor, Tensor] | None = None
        self._batch_size = 0
        self._labels = labels
        self._seed = seed

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        s, t = embedding_pair(student, teacher)
        labels, num_classes, seed = context.targets, context.num_classes, context.seed
        if self._labels is not None:
            labels, seed = self._labels, self._seed
            num_classes = max(num_classes, int(labels.max()) + 1)
        if not len(labels):
            raise ConfigError(
                "loss=crd stores an embedding of every training image: pass the labels of all, "
                "CRD(labels=train_labels) or Distiller(..., labels=train_labels)."
            )
        self.embed_student = nn.Linear(s.shape[1], self.dim)
        self.embed_teacher = nn.Linear(t.shape[1], self.dim)
        self.student_side = Memory(len(labels), self.dim)
        self.teacher_side = Memory(len(labels), self.dim)
        self.sampler = NegativeSampler(labels, num_classes, self.negatives, seed)
        self._batch_size = context.batch_size

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from embeddings `[B, D_s]` and `[B, D_t]`, labels and positions `[B]`."""
        s, t = embedding_pair(student, teacher)
        e_s, e_t = unit(self.embed_student(s), dim=1), unit(self.embed_teacher(t), dim=1)
        columns = self._columns(batch)
        if self.training:
            self._seen = (batch.index, e_s.detach(), e_t.detach())
        loss: Tensor = self.teacher_side(e_s, columns, self.tau)
        return loss + self.student_side(e_t, columns, self.tau)

    def _columns(self, batch: Batch) -> Tensor:
        """`[B, 1 + K]`: each image's positive, then its negatives."""
        assert isinstance(self.sampler, NegativeSampler), "the adapters are not built"
        positive = batch.index
        if self.variant == "relax":
            positive = self.sampler.same_class(batch.index, batch.targets, self.step)
        negative = self.sampler.negatives(batch.targets, self.step)
        return torch.cat([positive[:, None], negative], dim=1)

    def after_step(self) -> None:
        """Write the last batch's embeddings into the memories."""
        if self._seen is None:
            return
        index, e_s, e_t = self._seen
        self._seen = None
        for side, embeddings in ((self.student_side, e_s), (self.teacher_side, e_t)):
            assert isinstance(side, Memory)
            side.write(index, embeddings, self.momentum)
        self.step += 1

    def notes(self) -> list[str]:
        """Memory use of the banks, for the start of a run."""
        assert isinstance(self.student_side, Memory)
        rows = len(self.student_side.rows)
        memory, scores = 2 * rows * self.dim * 4, 2 * self._batch_size * rows * 4
        return [
            f"crd keeps two memories of {rows} × {self.dim} numbers on the device and in each "
            f"checkpoint ({memory / 1e6:.0f} MB); a step's scores take {scores / 1e6:.0f} MB"
        ]

    def symbol(self) -> str:
        return f"CRD(K={self.negatives})"


class Memory(nn.Module):
    """Memory bank: one network's embeddings of all images, and the normalisation constant Z.

    rows: `[N, dim]`. log_constant: log Z, infinite until the first batch sets it.
    """

    rows: Tensor
    log_constant: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        bound = math.sqrt(3.0 / dim)
        self.register_buffer("rows", torch.empty(size, dim).uniform_(-bound, bound))
        self.register_buffer("log_constant", torch.tensor(math.inf))

    def forward(self, anchors: Tensor, columns: Tensor, tau: float) -> Tensor:
        """The loss of anchors `[B, dim]` and rows `[B, 1 + K]`, the positive first."""
        rows = self.rows.to(anchors.dtype)
        scores = (anchors @ rows.T / tau).gather(1, columns)
        self._set_constant(scores.detach())
        noise = math.log((columns.shape[1] - 1) / len(rows))
        # with r = log h - log c, c = K/N: log h / (h + c) = logsigmoid(r), log c / (h + c) = of -r
        ratio = scores - self.log_constant.to(scores.dtype) - noise
        positive, negative = F.logsigmoid(ratio[:, :1]), F.logsigmoid(-ratio[:, 1:])
        return -(positive.sum() + negative.sum()) / len(anchors)

    def _set_constant(self, scores: Tensor) -> None:
        """log Z = log N + log mean exp(scores), of the first batch only."""
        mean = scores.flatten().logsumexp(0) - math.log(scores.numel()) + math.log(len(self.rows))
        kept = self.log_constant
        kept.copy_(torch.where(kept.isinf(), mean.to(kept.dtype), kept))

    def write(self, index: Tensor, embeddings: Tensor, momentum: float) -> None:
        """Update the rows `index` `[B]` with `embeddings` `[B, dim]` and normalise them."""
        old = self.rows[index]
        new = momentum * old + (1.0 - momentum) * embeddings.to(old.dtype)
        self.rows.index_copy_(0, index, unit(new, dim=1))
