"""Class attention transfer: Guo et al., CVPR 2023, arXiv 2304.12777."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss, LossContext
from kdrun.losses.class_maps import class_maps, pooled_map_tap
from kdrun.losses.context import NetworkView, NoNetwork
from kdrun.losses.embeddings import Classifier, student_classifier, teacher_classifier, teacher_on
from kdrun.losses.shapes import map_pairs, pooled, unit
from kdrun.ranges import Pixels
from kdrun.types import Batch, InputInfo, Outputs


class ClassAttention(DistillationLoss):
    """(M_s - M_t)², mean over all elements, of class activation maps M `[B, C, r, r]`.

    M is the linear classifier applied at each place of the map that the network averages before it,
    without bias, averaged down to r × r places (the smaller side of the maps where that is less).
    The gradient reaches the student's classifier. weight: 15 with 1 · CE, the published value for
    ResNet-32x4 → ResNet-8x4; other pairs take others.

    resolution: r, pixels. normalise: divide each class's map by its L2 norm over the places.
    binarise: the teacher's maps become 1 above their mean absolute value, else 0.
    student_classifier, teacher_classifier: linear layers or 1×1 convolutions, instead of those in
    the networks. As a criterion: give both, and call it with the two maps `[B, D, H, W]`.
    Raises ConfigError for networks that do not end in an average and a linear classifier.
    """

    id = "cat_kd"
    full_name = "Class attention transfer"
    formula = (
        "(M_s - M_t)², mean over batch, classes and places; M = classifier at each place of the "
        "last map, averaged to r × r"
    )
    source = "Guo et al. 2023, CVPR, arXiv 2304.12777; weight from the authors' code"
    reads_embedding = True
    python_only = ("student_classifier", "teacher_classifier")

    def __init__(
        self,
        resolution: Pixels = 2,
        normalise: bool = False,
        binarise: bool = False,
        student_classifier: Classifier | None = None,
        teacher_classifier: Classifier | None = None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.normalise = normalise
        self.binarise = binarise
        # in a tuple: modules of the networks, neither trained nor saved with this loss
        self._classifiers: tuple[Classifier, Classifier] | None = None
        if student_classifier is not None and teacher_classifier is not None:
            self._classifiers = (student_classifier, teacher_classifier)

    def request_taps(self, student: NetworkView, teacher: NetworkView, info: InputInfo) -> None:
        self.taps = [
            [
                pooled_map_tap("loss=cat_kd", "student", student, info),
                pooled_map_tap("loss=cat_kd", "teacher", teacher, info),
            ]
        ]

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """The map alone; a run reads the embedding to find the classifiers."""
        (features,) = self.require_count(tensors, 1, who)
        return self.of_features([features], who)

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        if self._classifiers is not None:
            return
        if isinstance(context.student, NoNetwork):
            raise ConfigError(
                "loss=cat_kd needs both classifiers: pass them, "
                "CATKD(student_classifier=student.fc, teacher_classifier=teacher.fc)."
            )
        self._classifiers = (
            student_classifier(self.id, context.student, student),
            teacher_classifier(self.id, context.teacher, teacher),
        )

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the maps `[B, D_s, H, W]` and `[B, D_t, H, W]`."""
        assert self._classifiers is not None
        ((student_map, teacher_map),) = map_pairs(self, student, teacher)
        self._classifiers = teacher_on(teacher_map.device, self._classifiers)
        for_student, for_teacher = self._classifiers
        size = min(self.resolution, *student_map.shape[2:], *teacher_map.shape[2:])
        maps = class_maps(for_student, pooled(student_map, (size, size)))
        with torch.no_grad():
            targets = class_maps(for_teacher, teacher_map)
            if self.binarise:
                mean = targets.abs().mean(dim=(2, 3), keepdim=True)
                targets = (targets > mean).to(targets.dtype)
            targets = pooled(targets, (size, size))
        if self.normalise:
            maps, targets = (unit(each.flatten(2), dim=2) for each in (maps, targets))
        return F.mse_loss(maps, targets)

    def symbol(self) -> str:
        return f"CAT({self.resolution}x{self.resolution})"
