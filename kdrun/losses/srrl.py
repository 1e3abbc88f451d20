"""Softmax regression representation learning: Yang et al., ICLR 2021."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.adapters import connector
from kdrun.losses.base import (
    DistillationLoss,
    LossContext,
    TapRequest,
    full_precision,
    require_variant,
)
from kdrun.losses.context import NoNetwork
from kdrun.losses.embeddings import (
    classify,
    is_rectified,
    teacher_classifier,
    teacher_embedding,
)
from kdrun.losses.shapes import as_map
from kdrun.ranges import NotNegative
from kdrun.types import Batch, Outputs


class SoftmaxRegression(DistillationLoss):
    """Match projected student features with the teacher's, directly and through its classifier.

    h = connector(student's features): 1×1 convolution without bias, batch normalisation, and a
    ReLU if the teacher's embedding has no negative values; `[B, D_t]`. Loss: mean over all
    elements of (h - e_t)² plus the mean over batch and classes of (W_t h + b_t - z_t)², where W_t,
    b_t is the teacher's classifier, which is frozen (eq. 3 and 5). weight: 1 (the authors'
    code; the CIFAR tables of Chen et al., arXiv 2203.14001, add kd with weight 1:
    `'loss=[kd,srrl]' loss.kd.weight=1 ce=1`).

    As a criterion: give `classifier`, the teacher's (`teacher.fc`);
    `loss(student_embedding, teacher_embedding)`, or in the variant `map` the student's map first.
    The teacher's logits are computed from its embedding unless `teacher_logits=` is given.

    feature, regression: weights of the two parts.
    classifier: linear layer or 1×1 convolution, instead of the one in the teacher's network.
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
    python_only = ("classifier",)

    def __init__(
        self,
        taps: Sequence[TapRequest] = ("last_stage",),
        feature: NotNegative = 1.0,
        regression: NotNegative = 1.0,
        variant: str = "embedding",
        classifier: nn.Linear | nn.Conv2d | None = None,
    ) -> None:
        require_variant(type(self), variant)
        super().__init__(taps if variant == "map" else ())
        self.feature = feature
        self.regression = regression
        self.variant = variant
        self.connector: nn.Module = nn.Identity()
        # in a tuple: the teacher's module, neither trained nor saved with this loss
        self._classifier: tuple[nn.Linear | nn.Conv2d, ...] = ()
        self._given = () if classifier is None else (classifier,)

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """The teacher's embedding; of the student its embedding, or its map."""
        (tensor,) = self.require_count(tensors, 1, who)
        if who == "student" and self.variant == "map":
            return self.of_features([tensor], who)
        return Outputs(tensor.flatten(1)[:, :0], embedding=self.require_embedding(tensor, who))

    def build(self, student: Outputs, teacher: Outputs, context: LossContext) -> None:
        if not self._given and isinstance(context.teacher, NoNetwork):
            raise ConfigError(
                "loss=srrl needs the teacher's classifier: pass it, SRRL(classifier=teacher.fc)."
            )
        self._classifier = self._given or (teacher_classifier(self.id, context.teacher, teacher),)
        embedding = teacher_embedding(teacher)
        layers = connector(self._source(student).shape[1], embedding.shape[1])
        if is_rectified(embedding):
            layers.append(nn.ReLU())
        self.connector = layers

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        """Scalar from the student's features, the teacher's embedding and logits."""
        adapted = self.connector(self._source(student)).mean(dim=(2, 3))
        embedding = teacher_embedding(teacher)
        logits = full_precision(teacher.logits).detach()
        if self._classifier[0].weight.device != adapted.device:  # rows of the teacher's classifier
            self._classifier = (self._classifier[0].to(adapted.device),)
        if not logits.shape[1]:  # a criterion without the teacher's logits
            logits = classify(self._classifier[0], embedding)
        regression = F.mse_loss(classify(self._classifier[0], adapted), logits)
        return self.feature * F.mse_loss(adapted, embedding) + self.regression * regression

    def _source(self, student: Outputs) -> Tensor:
        """What the connector takes, as a map `[B, C, H, W]`."""
        if self.variant == "map":
            name = self.pairs[0][0]
            return as_map(full_precision(student.features[name]), f"the student's {name}")
        assert student.embedding is not None
        return as_map(full_precision(student.embedding))
