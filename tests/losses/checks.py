"""Registry of the common checks: which apply to each loss, and why others do not.

`tests/losses/test_every_loss.py` runs every check on every loss in `configs/loss`, except those in
`skip`. docs/losses.md has the same table. A skip gives the reason why a check is meaningless for a
method; it does not mean that the check fails.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kdrun.losses.catalogue import Proof, label_pairs_markdown, losses_markdown

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "losses.md"
RECIPES = DOCUMENT.with_name("recipes.md")
TABLE_START, TABLE_END = "<!-- label pairs: generated -->", "<!-- end of label pairs -->"

# Check → what it verifies, in the column order of the table.
CHECKS = {
    "gradcheck": "gradients in float64 agree with finite differences",
    "equal": "the loss of a student that equals its teacher is zero, its gradients finite",
    "extreme": "logits of ±1e4: loss and gradients are finite",
    "zeros": "all-zero features and logits: loss and gradients are finite",
    "duplicates": "identical images in a batch: loss and gradients are finite",
    "constant": "constant features: loss and gradients are finite",
    "single": "a batch of one image",
    "two_classes": "two classes",
    "bf16": "outputs in bfloat16: the loss is a finite float32",
    "compile": "one graph with torch.compile(fullgraph=True), same value",
    "mlp": "a convolutional teacher and a fully connected student",
    "mobilenet": "a ResNet teacher and a MobileNetV2 student, 32×32 pixels",
    "falls": "the loss decreases in training on the digits, and in every pre-training phase",
    "learns": "the student learns the digits (above 80 % top-1); the teacher does not change",
    "resume": "interrupted within an epoch and resumed: the same weights bit for bit",
}


@dataclass(frozen=True)
class Checks:
    """The checks of one loss.

    against: what the loss's own test compares value and gradient with.
    skip: check → why it does not apply.
    settings: parameters of the loss in all common checks (e.g. a smaller memory bank).
    training: more parameters, or a weight, for `learns` and `resume` (e.g. pretrain_epochs).
    learning: the same for `learns` only (e.g. a weight for 8×8 pixels).
    refuses: pair of networks (`mlp`, `mobilenet`) → why it raises a ConfigError.
    """

    against: str
    skip: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    learning: dict[str, Any] = field(default_factory=dict)
    refuses: dict[str, str] = field(default_factory=dict)


ENTROPY = "a cross-entropy: the teacher's entropy remains, a constant for the student"

FLATTENED = "the student, which has no temperature, is compared with flattened targets"

# Labels and soft targets.
LOGITS = {
    "ce": Checks(
        "the mean of -log p of the label, in a loop",
        skip={"equal": "it compares with the labels, not the teacher"},
    ),
    "kd": Checks("p log(p / q) summed in loops over images and classes"),
    "abkd": Checks("the definition class by class in loops, with its limits"),
    "logits": Checks("squared differences in loops; the limit of kd at T = 1e4"),
    "logit_std": Checks("z-scores by NumPy in float64, KL in loops"),
    "dkd": Checks("probabilities p and 1 - p in float64 loops; at C = 2 the binary KL alone"),
    "dist": Checks("numpy.corrcoef of every row and column"),
    "nkd": Checks("the equation in loops over images and classes", skip={"equal": ENTROPY}),
    "wsld": Checks(
        "the equation in loops over images and classes",
        skip={
            "equal": ENTROPY,
            "gradcheck": "the sample weights pass no gradient by design; its own test checks this",
        },
    ),
    "mlkd": Checks(
        "the three levels in loops over images and pairs",
        skip={"equal": "it includes CE of the strong view"},
        learning={"weight": 0.3},  # the sum over five temperatures is large for this learning rate
    ),
    "ctkd": Checks(
        "kd and dkd at the learned T; θ's gradient by finite differences, times -λ",
        skip={"gradcheck": "θ's gradient is reversed by design; its own test checks both"},
    ),
    "ttm": Checks(
        "powers of probabilities and p log(p / q) in float64 loops", skip={"equal": FLATTENED}
    ),
    "wttm": Checks(
        "powers, their sums and p log(p / q) in float64 loops", skip={"equal": FLATTENED}
    ),
    "rld": Checks(
        "confidence pairs and masked classes in float64 loops",
        skip={"equal": "the student's label is compared with the teacher's own class"},
    ),
    "wkd_l": Checks(
        "Sinkhorn's iterations row by row in NumPy",
        skip={"equal": ENTROPY},
        settings={"transport": 6.0},  # 600 leaves float32 too few digits for finite differences
    ),
    "skd": Checks("numpy.cov and numpy.linalg.inv of the differences of Gram matrices"),
    "crld": Checks(
        "both views in float64 loops over images",
        skip={"equal": "it holds CE of the strong view as well"},
    ),
    "deit_soft": Checks("p log(p / q) in loops, divided as paper and code divide"),
    "deit_hard": Checks(
        "the mean of -log p of the teacher's class, in a loop", skip={"equal": ENTROPY}
    ),
}

# Feature maps.
ADAPTED = "an adapter transforms the features: equal inputs give unequal outputs"
NO_PLACES = "a fully connected layer has no spatial dimensions to compare"
BEFORE = "active before the main phase, and 0 in it"
FEATURES = {
    "fitnet": Checks(
        "the regression's squared errors in loops over images and channels",
        skip={"equal": ADAPTED},
    ),
    "at": Checks(
        "attention maps in loops over channels",
        learning={"weight": 10.0},  # the default is tuned for 32×32 pixels: see its docstring
        refuses={"mlp": NO_PLACES},
    ),
    "vid": Checks("torch.distributions.Normal, without its constant", skip={"equal": ADAPTED}),
    "nst": Checks(
        "the kernel in loops over pairs of channels",
        learning={"weight": 10.0},  # as at
        refuses={"mlp": NO_PLACES},
    ),
    "fsp": Checks(
        "FSP matrices in loops over pairs of channels",
        skip={"falls": BEFORE},
        settings={"connectors": True},
        training={"pretrain_epochs": 2},
    ),
    "ab": Checks(
        "the cases of the hinge, element by element",
        skip={"falls": BEFORE, "equal": "the hinge demands a margin beyond the teacher's signs"},
        training={"pretrain_epochs": 2},
    ),
    "ft": Checks(
        "factors image by image from the same layers",
        skip={
            "equal": ADAPTED,
            "gradcheck": "the paraphraser is outside the graph by design; its own test checks "
            "student and translator",
        },
        training={"pretrain_epochs": 2},
        learning={"weight": 10.0},  # as at
        refuses={"mlp": NO_PLACES},
    ),
    "ofd": Checks(
        "the cases of the partial distance, element by element; margins by sampling",
        skip={"equal": ADAPTED},
    ),
    "wkd_f": Checks(
        "means and deviations in loops over images and channels", skip={"equal": ADAPTED}
    ),
    "cat_kd": Checks(
        "class maps by einsum and averages in loops over classes and places",
        skip={
            "gradcheck": "the student's classifier is not the loss's; its own test checks both",
            "equal": "equal maps, but two different classifiers",
        },
        learning={"weight": 1.0},  # 15 is for CIFAR networks
        refuses={"mlp": "no feature map before the classifier"},
    ),
    "ofa": Checks(
        "targets and log p in float64 loops; exits layer by layer", skip={"equal": ENTROPY}
    ),
    "reviewkd": Checks(
        "fusion and pooled errors written out with einsum and loops", skip={"equal": ADAPTED}
    ),
}

# Relations between images, contrastive losses, reused classifiers.
RELATIONS = {
    "sp": Checks("Gram matrices in loops over pairs of images"),
    "cc": Checks(
        "differences in loops over neighbouring images; the Gaussian kernel's series by hand",
        skip={"equal": ADAPTED},
    ),
    "rkd": Checks("norms and angles of the vectors themselves, in loops over triplets"),
    "pkt": Checks("cosines and probabilities in loops over pairs of images"),
    "kdsvd": Checks(
        "numpy.linalg.svd image by image; gradients by finite differences",
        refuses={"mlp": NO_PLACES},
    ),
    "nd": Checks(
        "cosines with class means and lengths in loops over images",
        skip={"equal": "the teacher's embedding is not the mean of its class"},
    ),
    "itrd": Checks(
        "correlations by dimension and cosines by pair of images, in loops",
        skip={"equal": ADAPTED},
    ),
    "srd": Checks("normalised differences, their powers and KL in loops", skip={"equal": ADAPTED}),
    "crd": Checks(
        "the authors' form with gathered memories, h and Z as such, in float64",
        skip={"equal": ADAPTED},
        settings={"negatives": 64},
    ),
    "srrl": Checks("features and logits in loops over images", skip={"equal": ADAPTED}),
    "semckd": Checks(
        "attention and distances image by image, layer by layer",
        skip={"equal": ADAPTED},
        training={"weight": 10.0},  # 400 is tuned for CIFAR networks and drowns out the labels here
    ),
    "simkd": Checks(
        "squared differences in loops; the kept network rebuilt from its parts",
        skip={"equal": "the projector belongs to the student: its own test has equal features"},
    ),
}

REGISTRY = {**LOGITS, **FEATURES, **RELATIONS}


def documented() -> str:
    """The expected content of docs/losses.md."""
    proofs = {
        name: Proof(
            entry.against,
            entry.skip | {pair: f"refused: {why}" for pair, why in entry.refuses.items()},
        )
        for name, entry in REGISTRY.items()
    }
    return losses_markdown(proofs, CHECKS)


def recipes_documented() -> str:
    """The expected content of docs/recipes.md: its text with the table of label pairs renewed."""
    before, _, rest = RECIPES.read_text(encoding="utf-8").partition(TABLE_START)
    after = rest.partition(TABLE_END)[2]
    return f"{before}{TABLE_START}\n{label_pairs_markdown()}\n{TABLE_END}{after}"


if __name__ == "__main__":
    DOCUMENT.write_text(documented(), encoding="utf-8")
    RECIPES.write_text(recipes_documented(), encoding="utf-8")
