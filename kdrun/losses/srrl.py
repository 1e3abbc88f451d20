"""Softmax regression representation learning: Yang et al., ICLR 2021."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.losses.adapters import connector
from kdrun.losses.base import (
    DistillationLoss,
    LossContext,
    TapRequest,
    full_precision,
    require_variant,
)
from kdrun.losses.embeddings import (
    classify,
    embedding_pair,
    is_rectified,
    teacher_classifier,
)
from kdrun.losses.shapes import as_map
from kdrun.ranges import NotNegative
from kdrun.types import Batch, Outputs


class SoftmaxRegression(DistillationLoss):
    """Adapted student features equal the teacher's, and so do the teacher's logits of them.

    h = connector(student's features): 1×1 convolution without bias, batch normalisation, and a
    ReLU if the teacher's embedding has no negative values; `[B, D_t]`. Loss: mean over all
    elements of (h - e_t)² plus the mean over batch and classes of (W_t h + b_t - z_t)², where W_t,
    b_t is the teacher's classifier, which stays as it is (eq. 3 and 5). weight: 1 (the authors'
    code; the CIFAR tables of Chen et al., arXiv 2203.14001, add kd with weight 1:
    `'loss=[kd,srrl]' loss.kd.weight=1 ce=1`).

    feature, regression: weights of the two parts.
    variant: see `variants`.
    Raises ConfigError for a variant that does not exist and a teacher whose classifier is no
    linear layer.
    """

    id = "srrl"
    full_name = "Softmax regression representation learning"
    formula = (
        "(h - e_t)², mean over all elements, + (W_t h + b_t - z_t)², mean over batch and classes; "
        "h = connector(student), W_t frozen"
    )
    source = "Yang, Martinez, Bulat & Tzimiropoulos 2021, ICLR, OpenReview ZzwDy_wiWv, §3"
    variants = {  # noqa: RUF012
        "embedding": "the connector takes the student's embedding",
        "map": "the connector takes the map of the tap, and is averaged (the authors' code)",
    }
    reads_embedding = True

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("last_stage",),
        feature: NotNegative = 1.0,
        regression: NotNegative = 1.0,
        variant: str = "embedding",
    ) -> None:
        require_variant(type(self), variant)
        super().__init__(taps if variant == "map" else ())
        self.feature = feature
        self.regression = regression
        self.variant = variant
        self.connector: nn.Module = nn.Identity()
        # in a tuple: the teacher's own module, neither trained nor saved with this term
        self._classifier: tuple[nn.Linear | nn.Conv2d, ...] = ()

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        self._classifier = (teacher_classifier(self.id, context.teacher, teacher),)
        embedding = embedding_pair(student, teacher)[1]
        layers = connector(self._source(student).shape[1], embedding.shape[1])
        if is_rectified(embedding):
            layers.append(nn.ReLU())
        self.connector = layers

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the student's features, the teacher's embedding and logits."""
        adapted = self.connector(self._source(student)).mean(dim=(2, 3))
        _, embedding = embedding_pair(student, teacher)
        logits = full_precision(teacher.logits).detach()
        if self._classifier[0].weight.device != adapted.device:  # rows of the teacher's classifier
            self._classifier = (self._classifier[0].to(adapted.device),)
        regression = F.mse_loss(classify(self._classifier[0], adapted), logits)
        return self.feature * F.mse_loss(adapted, embedding) + self.regression * regression

    def _source(self, student: Outputs) -> Tensor:
        """What the connector takes, as a map `[B, C, H, W]`."""
        if self.variant == "map":
            name = self.pairs[0][0]
            return as_map(full_precision(student.features[name]), f"the student's {name}")
        assert student.embedding is not None
        return as_map(full_precision(student.embedding))
