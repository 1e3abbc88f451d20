"""Which of the common checks each loss passes, and why one does not apply to it.

`tests/losses/test_every_loss.py` runs every check on every loss of `configs/loss`, except those in
`skip`; the table in docs/losses.md is made from this registry. A skip says why the check has no
meaning for the method, not that it fails.
"""

from dataclasses import dataclass, field
from typing import Any

# The checks by name, in the order of the table, with what each of them shows.
CHECKS = {
    "gradcheck": "gradients in float64 agree with finite differences",
    "equal": "the loss of a student that equals its teacher is zero, its gradients finite",
    "extreme": "logits of ±1e4: loss and gradients are finite",
    "zeros": "all-zero features and logits: loss and gradients are finite",
    "duplicates": "all images of a batch alike: loss and gradients are finite",
    "constant": "features without variation: loss and gradients are finite",
    "single": "a batch of one image",
    "two_classes": "two classes",
    "bf16": "outputs in bfloat16: the loss is a finite float32",
    "compile": "one graph under torch.compile(fullgraph=True), same value",
    "mlp": "a convolutional teacher and a fully connected student",
    "mobilenet": "a ResNet teacher and a MobileNetV2 student, 32×32 pixels",
    "falls": "the term's value falls while training on the digits",
    "learns": "the student learns the digits (more than 80 % right), the teacher stays as it was",
    "resume": "stopped within an epoch and continued: the same weights bit for bit",
}


@dataclass(frozen=True)
class Checks:
    """One loss.

    against: what the loss's own test compares value and gradient with.
    skip: check → why it does not apply.
    settings: parameters of the term in all common checks (e.g. a smaller memory).
    training: further parameters for `learns` and `resume` (e.g. pretrain_epochs).
    refuses: pair of networks (`mlp`, `mobilenet`) → why it is refused with a ConfigError.
    """

    against: str
    skip: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)


# Labels and soft targets.
LOGITS = {
    "ce": Checks(
        "the mean of -log p of the label, in a loop",
        skip={"equal": "it compares with labels, not with the teacher"},
    ),
    "kd": Checks("p log(p / q) summed in loops over images and classes"),
    "logits": Checks("squared differences in loops; the limit of kd at T = 1e4"),
}

# Feature maps.
FEATURES: dict[str, Checks] = {}

# Relations between images, contrast, borrowed classifiers.
RELATIONS = {
    "sp": Checks("Gram matrices in loops over pairs of images"),
}

REGISTRY = {**LOGITS, **FEATURES, **RELATIONS}
