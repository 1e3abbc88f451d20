"""Logits per region of the last map: Wei, Luo & Luo, CVPR 2024, arXiv 2403.13512 (SDD)."""

import itertools
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import PER_LABEL, DistillationLoss, LossContext
from kdrun.losses.class_maps import class_maps, pooled_map_tap
from kdrun.losses.context import NetworkView, NoNetwork
from kdrun.losses.embeddings import Classifier, student_classifier, teacher_classifier, teacher_on
from kdrun.losses.label_pairs import mean_over_labels
from kdrun.losses.shapes import map_pairs, pooled
from kdrun.ranges import Pixels
from kdrun.types import Batch, InputInfo, Outputs


class RegionalLoss(DistillationLoss):
    """Base of losses on logits that can also compare the logits of regions (`regions`).

    For every r in `regions` the map `[B, D, H, W]` before the global average is averaged to r × r
    places, and the classifier turns each place into logits; r = 1 is the network's own logits. The
    loss is the mean over the N = Σ r² regions and the batch. A region counts twice where it and the
    whole image disagree on whether the teacher is right; the sum is still divided by N · B, as in
    the authors' code. Regions are averages of the map; the code takes those of 2 × 2 from 4 × 4,
    which is the same for sides that are multiples of 4. A map with fewer places repeats them.

    As a criterion with regions: give both classifiers, and call it with the two maps and targets.
    Raises ConfigError for regions that do not start with 1 and rise, for regions finer than both
    maps, and for networks that do not end in an average and a linear classifier.
    """

    label_pairs = PER_LABEL
    python_only = ("student_classifier", "teacher_classifier")

    def __init__(
        self,
        regions: Sequence[Pixels] | None,
        student_classifier: Classifier | None,
        teacher_classifier: Classifier | None,
    ) -> None:
        super().__init__()
        if not _are_regions(regions):
            raise ConfigError(
                f"loss.{self.id}.regions={regions} must be whole numbers that start with 1, the "
                f"whole map, and rise, e.g. loss.{self.id}.regions=[1,2,4]."
            )
        self.regions = [1] if regions is None else list(regions)
        self._classifiers: tuple[Classifier, Classifier] | None = None
        if student_classifier is not None and teacher_classifier is not None:
            # in a tuple: modules of the networks, neither trained nor saved with this loss
            self._classifiers = (student_classifier, teacher_classifier)
        if self.regional:
            self.reads_labels = self.reads_embedding = True

    @property
    def regional(self) -> bool:
        """Whether there is more than one region."""
        return len(self.regions) > 1

    @abstractmethod
    def label_loss(
        self, student: Tensor, teacher: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Tensor:
        """The loss of logits `[N, C]` and labels `[N]`, a mean over rows weighted by `[N]`."""

    def request_taps(self, student: NetworkView, teacher: NetworkView, info: InputInfo) -> None:
        if self.regional:
            setting = f"loss.{self.id}.regions"
            self.taps = [
                [
                    pooled_map_tap(setting, "student", student, info),
                    pooled_map_tap(setting, "teacher", teacher, info),
                ]
            ]

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """With regions the map alone; a run reads the embedding to find the classifiers."""
        if not self.regional:
            return super().arrange(tensors, who)
        (features,) = self.require_count(tensors, 1, who)
        return self.of_features([features], who)

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        if not self.regional:
            return
        if self._classifiers is None:
            self._classifiers = self._find_classifiers(student, teacher, context)
        maps = map_pairs(self, student, teacher)[0]
        if all(min(each.shape[2:]) < self.regions[-1] for each in maps):
            sizes = " and ".join(f"{each.shape[2]}×{each.shape[3]}" for each in maps)
            raise ConfigError(
                f"loss.{self.id}.regions={self.regions} are finer than the last maps of student "
                f"and teacher ({sizes} pixels): leave out the last number, or use larger images."
            )

    def _find_classifiers(
        self, student: Outputs, teacher: Outputs, context: LossContext
    ) -> tuple[Classifier, Classifier]:
        if isinstance(context.student, NoNetwork):
            raise ConfigError(
                f"loss.{self.id}.regions needs both classifiers: pass them, "
                "student_classifier=student.fc and teacher_classifier=teacher.fc."
            )
        setting = f"{self.id} with regions"
        for_teacher = teacher_classifier(setting, context.teacher, teacher)
        return student_classifier(setting, context.student, student), for_teacher

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from logits `[B, C]`, and with regions the maps, and labels `[B]`."""
        if not self.regional:
            return mean_over_labels(
                lambda targets, shares: self.label_loss(
                    student.logits, teacher.logits, targets, shares
                ),
                batch,
            )
        rows, teacher_rows = self._region_logits(student, teacher)

        def loss(targets: Tensor, shares: Tensor | None) -> Tensor:
            weights = disagreement(teacher_rows, targets)
            if shares is not None:
                weights = weights * shares
            repeated = targets.expand_as(weights).flatten()
            return self.label_loss(
                rows.flatten(0, 1), teacher_rows.flatten(0, 1), repeated, weights.flatten()
            )

        return mean_over_labels(loss, batch)

    def _region_logits(self, student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
        """Logits `[N, B, C]` of all regions, the whole map first."""
        assert self._classifiers is not None
        ((student_map, teacher_map),) = map_pairs(self, student, teacher)
        self._classifiers = teacher_on(teacher_map.device, self._classifiers)
        for_student, for_teacher = self._classifiers
        rows = self._rows(for_student, student_map, student.logits)
        with torch.no_grad():
            targets = self._rows(for_teacher, teacher_map, teacher.logits)
        return rows, targets

    def _rows(self, classifier: Classifier, features: Tensor, logits: Tensor) -> Tensor:
        """As above for one network; logits: its own, or `[B, 0]` where only the map is known."""
        parts = []
        for size in self.regions:
            if size == 1 and logits.shape[1]:
                parts.append(logits.to(features.dtype)[None])
                continue
            scores = class_maps(classifier, to_grid(features, size), bias=True)
            parts.append(scores.flatten(2).permute(2, 0, 1))
        return torch.cat(parts)

    def regions_symbol(self) -> str:
        """`, regions=1+2+4` for the printed objective."""
        return f", regions={'+'.join(map(str, self.regions))}" if self.regional else ""


def _are_regions(value: object) -> bool:
    """Whether `value` is None, or rising whole numbers from 1 on."""
    if value is None:
        return True
    if not isinstance(value, Sequence) or not all(type(item) is int for item in value):
        return False
    return value[:1] in ([1], (1,)) and all(a < b for a, b in itertools.pairwise(value))


def to_grid(features: Tensor, size: int) -> Tensor:
    """A map averaged to `size` × `size` places; a map with fewer places repeats them."""
    if min(features.shape[2:]) >= size:
        return pooled(features, (size, size))
    return F.adaptive_avg_pool2d(features, size)


def disagreement(logits: Tensor, targets: Tensor) -> Tensor:
    """Weights `[N, B]` of regions with the teacher's logits `[N, B, C]`, the whole map first.

    2 where the region and the whole map differ in whether their largest logit is the label `[B]`,
    else 1.
    """
    right = logits.argmax(dim=2) == targets
    return (right != right[:1]).to(logits.dtype) + 1.0
