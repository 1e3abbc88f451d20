"""The reused teacher classifier: Chen et al., CVPR 2022, arXiv 2203.14001."""

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import NetworkConfig
from kdrun.losses.base import DistillationLoss, NetworkView
from kdrun.losses.embeddings import embedding_pair, teacher_classifier
from kdrun.losses.shapes import map_pairs, pooled
from kdrun.models.reused_classifier import PROJECTED, look, reuse_classifier
from kdrun.ranges import Channels
from kdrun.types import Batch, InputInfo, Outputs


class ReusedTeacherClassifier(DistillationLoss):
    """The student's features, projected, equal those that the teacher's classifier takes.

    The student that is trained and kept is another one (`models.reused_classifier`): its backbone
    without classifier, a projector (1×1, 3×3, 1×1 convolutions with batch normalisation, inner
    width D_t / `reduction`; a ReLU behind each, behind the last one if the teacher's features have
    no negative values) and the teacher's classifier, which stays as it is. It needs no teacher
    afterwards; its parameters and operations, projector and classifier included, are what the
    result states.

    Loss: mean over all elements of (p - f_t)², p the projected map `[B, D_t, H, W]`, f_t the
    teacher's map whose average over places is its embedding; the larger of the two maps is averaged
    down, the student's before it is projected. Where the teacher has no such map the embeddings
    `[B, D_t]` are compared. CE weighs 0 unless `ce` is set, and is then that of the kept network.
    weight: 1 (§3; the authors' code).

    reduction: of the projector's inner width, at least 1.
    Raises ConfigError for a smaller one and a teacher whose classifier is no linear layer.
    """

    id = "simkd"
    full_name = "Reused teacher classifier"
    formula = (
        "(P(f_s) - f_t)², mean over all elements; the student keeps the projector P and the "
        "teacher's classifier"
    )
    source = "Chen et al. 2022, CVPR, arXiv 2203.14001, §3, eq. 2"
    ce_weight = 0.0
    reads_embedding = True
    replaces_student = True

    def __init__(self, reduction: Channels = 2) -> None:
        super().__init__()
        self.reduction = reduction

    def final_network(
        self, student: NetworkView, config: NetworkConfig, teacher: NetworkView, info: InputInfo
    ) -> tuple[nn.Module, NetworkConfig]:
        """The student with the teacher's classifier; sets the taps that the loss compares."""
        own = look(student.network, student.paths["embedding"], info)
        other = look(teacher.network, teacher.paths["embedding"], teacher.info or info)
        classifier = teacher_classifier(self.id, teacher, teacher.answers(other.outputs))
        self.taps = [[PROJECTED, other.path]] if other.has_places else []
        return reuse_classifier(
            student.network, config, student.paths, (own, other), classifier, self.reduction, info
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the projected map and the teacher's, or from the embeddings."""
        if not self.pairs:
            return F.mse_loss(*embedding_pair(student, teacher))
        ((projected, target),) = map_pairs(self, student, teacher)
        height, width = projected.shape[2:]
        return F.mse_loss(projected, pooled(target, (height, width)))

    def notes(self) -> list[str]:
        """Which network the figures are of."""
        return [
            "simkd: the student keeps a projector and the teacher's classifier, and its parameters "
            "and FLOPs count both"
        ]

    def symbol(self) -> str:
        return "SimKD"
