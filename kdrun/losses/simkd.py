"""The reused teacher classifier: Chen et al., CVPR 2022, arXiv 2203.14001."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext, NetworkView, full_precision
from kdrun.losses.embeddings import classify, embedding_pair, is_rectified, teacher_classifier
from kdrun.losses.shapes import as_map, map_pairs, pooled, smaller_size
from kdrun.models.reused_classifier import PROJECTED, inspect_network, projector, reuse_classifier
from kdrun.ranges import Channels
from kdrun.types import Batch, InputInfo, Outputs


class ReusedTeacherClassifier(DistillationLoss):
    """Match the projected student features with the input of the teacher's classifier.

    The trained student is a composite network (`models.reused_classifier`): its backbone
    without classifier, a projector (1×1, 3×3, 1×1 convolutions with batch normalisation, inner
    width D_t / `reduction`; a ReLU behind each, behind the last one if the teacher's features have
    no negative values) and the teacher's classifier, frozen. It does not need the teacher after
    training; reported parameters and FLOPs include projector and classifier.

    Loss: mean over all elements of (p - f_t)², p the projected map `[B, D_t, H, W]`, f_t the
    teacher's map whose average over places is its embedding; the larger of the two maps is averaged
    down, the student's before it is projected. Where the teacher has no such map the embeddings
    `[B, D_t]` are compared. CE weighs 0 unless `ce` is set, and then applies to that network.
    weight: 1 (§3; the authors' code).

    As a criterion: `SimKD(classifier=teacher.fc)` builds the projector as its adapter, for
    `loss(student_map, teacher_map)`, the maps whose averages are the embeddings;
    `loss.classify(student_map)` gives the logits `[B, C]` of the student. Without `classifier` the
    student's map must be projected already, as in a run.

    reduction: of the projector's inner width, at least 1.
    classifier: the teacher's linear layer or 1×1 convolution.
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

    python_only = ("classifier",)

    def __init__(
        self, reduction: Channels = 2, classifier: nn.Linear | nn.Conv2d | None = None
    ) -> None:
        super().__init__()
        self.reduction = reduction
        self.projector: nn.Module | None = None
        self._size = (1, 1)
        # in a tuple: the teacher's module, neither trained nor saved with this loss
        self._classifier: tuple[nn.Linear | nn.Conv2d, ...] = ()
        if classifier is not None:
            self._classifier = (classifier,)

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """One map `[B, D, H, W]`, or an embedding `[B, D]`."""
        (tensor,) = self.require_count(tensors, 1, who)
        return self.of_features([tensor], who)

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        """Build the projector, where the loss has the teacher's classifier; in a run, nothing.

        Raises ConfigError for maps of different widths without a classifier.
        """
        if not self.pairs:
            return
        ((s, t),) = map_pairs(self, student, teacher)
        if self._classifier:
            self._size = smaller_size(s, t)
            inner = max(t.shape[1] // self.reduction, 1)
            self.projector = projector(s.shape[1], t.shape[1], inner, is_rectified(t))
        elif s.shape[1] != t.shape[1]:
            raise ConfigError(
                f"loss=simkd compares a projected map with the teacher's, but these have "
                f"{s.shape[1]} and {t.shape[1]} channels: use SimKD(classifier=teacher.fc), which "
                "projects the student's map."
            )

    def classify(self, student_map: Tensor) -> Tensor:
        """Logits `[B, C]` of the student's map `[B, C_s, H, W]`, by the teacher's classifier."""
        assert self.projector is not None, "call build_for, or the loss, first"
        projected = self.projector(pooled(full_precision(as_map(student_map)), self._size))
        return classify(self._classifier[0], projected.mean(dim=(2, 3)))

    def final_network(
        self, student: NetworkView, config: NetworkConfig, teacher: NetworkView, info: InputInfo
    ) -> tuple[nn.Module, NetworkConfig]:
        """The student with the teacher's classifier; sets the taps that the loss compares."""
        s = inspect_network(student.network, student.paths["embedding"], info)
        t = inspect_network(teacher.network, teacher.paths["embedding"], teacher.info or info)
        classifier = teacher_classifier(self.id, teacher, teacher.answers(t.outputs))
        self.taps = [[PROJECTED, t.path]] if t.has_places else []
        return reuse_classifier(
            student.network, config, student.paths, (s, t), classifier, self.reduction, info
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the projected map and the teacher's, or from the embeddings."""
        if not self.pairs:
            return F.mse_loss(*embedding_pair(student, teacher))
        ((projected, target),) = map_pairs(self, student, teacher)
        if self.projector is not None:
            projected = self.projector(pooled(projected, self._size))
        height, width = projected.shape[2:]
        return F.mse_loss(projected, pooled(target, (height, width)))

    def notes(self) -> list[str]:
        """Note on parameters and FLOPs for the start of a run."""
        return [
            "simkd: the student includes a projector and the teacher's classifier; its parameters "
            "and FLOPs count both"
        ]

    def symbol(self) -> str:
        return "SimKD"
