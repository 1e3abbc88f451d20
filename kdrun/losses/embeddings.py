"""The inputs of the two classifiers, and the teacher's classifier itself."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.losses.base import NetworkView, full_precision
from kdrun.models.select import rows_of
from kdrun.types import Outputs

TOLERANCE = 1e-3  # of the largest logit

Classifier = nn.Linear | nn.Conv2d
Pair = tuple[Classifier, Classifier]


def embedding_pair(student: Outputs, teacher: Outputs) -> tuple[Tensor, Tensor]:
    """The student's embedding `[B, D_s]` and the teacher's `[B, D_t]`, which has no gradient."""
    assert student.embedding is not None, "the loss must set reads_embedding"
    return full_precision(student.embedding), teacher_embedding(teacher)


def teacher_embedding(teacher: Outputs) -> Tensor:
    """The teacher's embedding `[B, D]`, without gradient."""
    assert teacher.embedding is not None, "the loss must set reads_embedding"
    return full_precision(teacher.embedding).detach()


def teacher_classifier(loss: str, teacher: NetworkView, outputs: Outputs) -> nn.Linear | nn.Conv2d:
    """The module that makes the teacher's logits from its embedding.

    If only some outputs of the teacher are used, a new layer with those rows.
    loss: its id, for errors. outputs: the teacher's, of a dry batch, of the classes.
    Raises ConfigError when the logits are not one linear map of the embedding.
    """
    return _linear_classifier(loss, "teacher", teacher, outputs)


def student_classifier(loss: str, student: NetworkView, outputs: Outputs) -> nn.Linear | nn.Conv2d:
    """The module that makes the student's logits; arguments and errors as above."""
    return _linear_classifier(loss, "student", student, outputs)


def _linear_classifier(
    loss: str, who: str, view: NetworkView, outputs: Outputs
) -> nn.Linear | nn.Conv2d:
    module = view.module("embedding")
    while isinstance(module, nn.Sequential) and len(module) == 1:
        module = module[0]
    if isinstance(module, nn.Linear | nn.Conv2d):
        if view.outputs is not None and max(view.outputs) < module.weight.shape[0]:
            module = rows_of(module, view.outputs)
        if _makes(module, outputs):
            return module
    raise ConfigError(
        f"loss={loss} needs a {who} whose logits are one linear layer of its embedding; "
        f"{type(view.network).__name__} ends in {type(module).__name__}. Use loss=pkt, loss=crd "
        "or another loss on the embedding."
    )


def teacher_on(device: torch.device, classifiers: Pair) -> Pair:
    """(student's, teacher's) classifiers with the teacher's on `device`.

    A classifier with selected rows is a new layer, which may be on another device.
    """
    student, teacher = classifiers
    return classifiers if teacher.weight.device == device else (student, teacher.to(device))


def classify(classifier: nn.Linear | nn.Conv2d, embedding: Tensor) -> Tensor:
    """Logits `[B, C]` of embeddings `[B, D]`, whose precision decides; the classifier is frozen."""
    weight = classifier.weight.detach().flatten(1).to(embedding.dtype)
    bias = None if classifier.bias is None else classifier.bias.detach().to(embedding.dtype)
    return F.linear(embedding, weight, bias)


def is_rectified(features: Tensor) -> bool:
    """Whether no feature is negative, as behind a ReLU."""
    return bool((features >= 0).all())


def _makes(classifier: nn.Linear | nn.Conv2d, outputs: Outputs) -> bool:
    """Whether the classifier turns the embedding into the logits."""
    if outputs.embedding is None or classifier.weight[0].numel() != outputs.embedding.shape[1]:
        return False
    with torch.no_grad():
        logits = classify(classifier, outputs.embedding.float())
    if logits.shape != outputs.logits.shape:
        return False
    tolerance = TOLERANCE * (1.0 + float(outputs.logits.abs().max()))
    return float((logits - outputs.logits).abs().max()) <= tolerance
