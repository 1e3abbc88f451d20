"""The usual loop: what most distillation code does, written plainly, to compare with.

A DataLoader over PIL images with per-image transforms, networks in torch's default layout, the
teacher run at every step, losses and accuracies read as Python numbers at every step. It is meant
to be a fair picture, not a slow one: no augmentation, meter or copy that a person would leave out,
and the loader reads in this process, which is quickest where processors are few.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader

from kdrun.config.schema import AugmentConfig
from kdrun.data.images import Split
from kdrun.engine.timing import PhaseClock
from kdrun.errors import ConfigError
from kdrun.types import Batch, Normalisation, to_device
from kdrun.vision import import_torchvision

LossFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
Forward = Callable[[Batch], tuple[Tensor, Tensor]]


class PilImages:
    """A map-style data set of images and labels, each made a PIL image and transformed when it is
    asked for, as torchvision's own data sets do.

    Raises ConfigError for values that no PIL image holds.
    """

    def __init__(self, split: Split, augment: AugmentConfig, normalisation: Normalisation) -> None:
        channels, height, width = split.shape
        if split.images.dtype != torch.uint8 or channels not in (1, 3):
            raise ConfigError(
                "The usual loop reads grey or colour images of 8 bits, which these data are not: "
                "leave 'usual' out of compare."
            )
        pixels = split.in_memory().permute(0, 2, 3, 1).contiguous().numpy()
        self.pixels = pixels[:, :, :, 0] if channels == 1 else pixels
        self.targets = split.targets.tolist()
        self.transform = _transform(augment, normalisation, (height, width))

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, number: int) -> tuple[Tensor, int, int]:
        from PIL import Image

        image = Image.fromarray(self.pixels[number])
        return self.transform(image), self.targets[number], number


def _transform(
    augment: AugmentConfig, normalisation: Normalisation, size: tuple[int, int]
) -> Callable[[Any], Tensor]:
    transforms = import_torchvision().transforms
    steps: list[Any] = []
    if augment.crop == "resized":
        scale, ratio = tuple(augment.scale), tuple(augment.ratio)
        steps.append(transforms.RandomResizedCrop(size, scale=scale, ratio=ratio))
    elif augment.crop_padding:
        mode = augment.padding_mode
        steps.append(transforms.RandomCrop(size, augment.crop_padding, padding_mode=mode))
    if augment.flip:
        steps.append(transforms.RandomHorizontalFlip())
    steps += _policy(augment, transforms)
    steps += [transforms.ToTensor(), transforms.Normalize(normalisation.mean, normalisation.std)]
    if augment.erasing.prob:
        erasing = augment.erasing
        scale, ratio = tuple(erasing.scale), tuple(erasing.ratio)
        steps.append(transforms.RandomErasing(erasing.prob, scale=scale, ratio=ratio))
    composed: Callable[[Any], Tensor] = transforms.Compose(steps)
    return composed


def _policy(augment: AugmentConfig, transforms: Any) -> list[Any]:
    """torchvision's transforms of PIL images for a policy and colour jitter.

    Raises ConfigError for what torchvision does not have.
    """
    if augment.mixes or augment.policy in ("timm_randaugment", "three_augment"):
        what = "mixing" if augment.mixes else f"augment.policy={augment.policy}"
        raise ConfigError(f"The usual loop has no {what}: leave 'usual' out of compare.")
    rand = {"num_ops": augment.num_ops, "magnitude": int(augment.magnitude)}
    auto, policies = transforms.AutoAugment, transforms.AutoAugmentPolicy
    made: dict[str, Callable[[], Any]] = {
        "randaugment": lambda: transforms.RandAugment(**rand),
        "trivialaugment": transforms.TrivialAugmentWide,
        "autoaugment": lambda: auto(policies.IMAGENET),
        "autoaugment_cifar10": lambda: auto(policies.CIFAR10),
        "autoaugment_svhn": lambda: auto(policies.SVHN),
    }
    steps = [made[augment.policy]()] if augment.policy in made else []
    jitter = augment.color_jitter
    factors = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    return steps + ([transforms.ColorJitter(*factors)] if any(factors) else [])


def usual_batches(
    split: Split,
    augment: AugmentConfig,
    normalisation: Normalisation,
    batch_size: int,
    workers: int = 0,
) -> Iterator[Batch]:
    """Shuffled batches without end, in this process or from `workers` others."""
    loader: DataLoader[Any] = DataLoader(
        PilImages(split, augment, normalisation),  # type: ignore[arg-type]
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        drop_last=len(split) >= batch_size,
    )
    while True:
        for images, targets, index in loader:
            yield Batch(images, targets, index)


def soft_target_objective(temperature: float, alpha: float, ce: float) -> LossFunction:
    """`(student logits, teacher logits, labels) → ce · CE + alpha · T² · KL`, as it is mostly
    written: `kl_div` of a log-softmax and a softmax."""

    def loss(student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        hard = F.cross_entropy(student, targets)
        soft = F.kl_div(
            F.log_softmax(student / temperature, dim=1),
            F.softmax(teacher / temperature, dim=1),
            reduction="sum",
        )
        return ce * hard + alpha * soft * temperature**2 / student.shape[0]

    return loss


def plain_forward(student: nn.Module, teacher: nn.Module, loss: LossFunction) -> Forward:
    """Student and frozen teacher as plain networks, images → logits."""
    student.train()
    teacher.eval()

    def forward(batch: Batch) -> tuple[Tensor, Tensor]:
        logits = student(batch.images)
        with torch.no_grad():
            teacher_logits = teacher(batch.images)
        return loss(logits, teacher_logits, batch.targets), logits

    return forward


class UsualLoop:
    """One step at a time, with the meters that such code keeps.

    forward: batch → (loss, student's logits). clock: told when the backward pass begins.
    """

    def __init__(
        self, forward: Forward, optimizer: optim.Optimizer, device: torch.device, clock: PhaseClock
    ) -> None:
        self.forward = forward
        self.optimizer = optimizer
        self.device = device
        self.clock = clock
        self.loss_sum = 0.0
        self.correct1 = self.correct5 = 0.0

    def step(self, batch: Batch) -> float:
        """One step; returns the loss."""
        batch = to_device(batch, self.device)
        loss, logits = self.forward(batch)
        answers = logits.topk(min(5, logits.shape[1]), dim=1).indices == batch.targets[:, None]
        value = float(loss.item())
        self.loss_sum += value * len(batch)
        self.correct1 += answers[:, 0].sum().item()
        self.correct5 += answers.sum().item()
        self.optimizer.zero_grad()
        self.clock.start("backward")
        loss.backward()
        self.optimizer.step()
        return value
