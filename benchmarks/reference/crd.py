"""CRD as it is mostly written, to compare with: every negative's row is gathered for every image.

Two tensors `[B, 1 + K, dim]` a step; a gigabyte for 64 images and 16,384 negatives of width 128.
The draws are the term's own, which cost less than a draw with NumPy for each image.
"""

import torch
from torch import Tensor

from kdrun.losses.crd import ContrastiveDistillation, Memory
from kdrun.losses.embeddings import embedding_pair
from kdrun.losses.shapes import unit
from kdrun.types import Batch, Outputs

EPSILON = 1e-7  # under the logarithms, as it is customary


class GatheredCrd:
    """The loss of a built term, whose layers, memories and draws it uses."""

    def __init__(self, term: ContrastiveDistillation) -> None:
        self.term = term

    def __call__(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar; the memories have the batch's embeddings afterwards."""
        term = self.term
        s, t = embedding_pair(student, teacher)
        e_s, e_t = unit(term.embed_student(s), dim=1), unit(term.embed_teacher(t), dim=1)
        columns = term._columns(batch)
        student_side, teacher_side = term.student_side, term.teacher_side
        assert isinstance(student_side, Memory)
        assert isinstance(teacher_side, Memory)
        loss = _side(e_s, teacher_side, columns, term.tau)
        loss = loss + _side(e_t, student_side, columns, term.tau)
        with torch.no_grad():
            for memory, embedding in ((student_side, e_s), (teacher_side, e_t)):
                memory.write(batch.index, embedding, term.momentum)
        term.step += 1
        return loss


def _side(anchors: Tensor, memory: Memory, columns: Tensor, tau: float) -> Tensor:
    """One side's loss; anchors `[B, dim]`, columns `[B, 1 + K]`, the positive first."""
    batch, count = columns.shape
    size = len(memory.rows)
    gathered = torch.index_select(memory.rows, 0, columns.reshape(-1)).detach()
    gathered = gathered.view(batch, count, -1)
    scores = torch.exp(torch.bmm(gathered, anchors[:, :, None])[:, :, 0] / tau)
    if bool(memory.log_constant.isinf()):
        memory.log_constant.copy_(torch.log(scores.mean().detach() * size))
    probability = scores / memory.log_constant.exp()
    noise = (count - 1) / size
    positive, negative = probability[:, :1], probability[:, 1:]
    right = torch.log(positive / (positive + noise + EPSILON))
    others = torch.log(noise / (negative + noise + EPSILON))
    return -(right.sum() + others.sum()) / batch
