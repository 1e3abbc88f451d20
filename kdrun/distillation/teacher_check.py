"""Check that a loaded teacher's class order matches the data set and that it beats chance.

Both checks use validation images, or training images if the validation split is missing or small;
never test images. A teacher that fails is refused. The error names the setting that fixes it, if
trying the common class orders and normalisation constants identifies one.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrun.config.schema import TeacherConfig
from kdrun.data.class_order import class_orders
from kdrun.data.constants import format_constants
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.distillation.loaded_teacher import LoadedTeacher
from kdrun.distillation.networks import renormalised
from kdrun.distillation.session import eval_loader
from kdrun.distillation.teacher_recipe import TeacherRecipe
from kdrun.engine.metrics import collect_logits
from kdrun.errors import CheckpointError
from kdrun.models.card import NetworkCard
from kdrun.teachers.chance import Answers, answers, clearly_better
from kdrun.teachers.constants import common_constants
from kdrun.teachers.outputs import permutation
from kdrun.types import Normalisation

MOST_IMAGES = 2000
TRIAL_IMAGES = 512
FEW_IMAGES = 200  # use training images if the validation split is smaller


@dataclass(frozen=True)
class Trial:
    """The teacher's logits `[N, C]` under different input settings.

    setting: the overrides that select them. what: their description for messages.
    """

    logits: Tensor
    setting: str
    what: str


@dataclass(frozen=True)
class TeacherCheck:
    """Checks a loaded teacher on validation or training images.

    kind: the split's name for messages. where: the teacher's config key, e.g. `teacher2`.
    """

    loaded: LoadedTeacher
    recipe: TeacherRecipe
    where: str
    split: Split
    kind: str

    def check(self) -> None:
        """Raise CheckpointError for a different class order or an accuracy near chance.

        Near-chance accuracy is only a warning with `teacher.check_accuracy=false`.
        """
        logits = self._logits(self.split, self.loaded.card.normalisation)
        if self.loaded.guesses_order:
            self._check_order(logits)
        measured = answers(logits, self.split.targets)
        if not measured.near_chance:
            return
        text = (
            f"{self.loaded.path} is near chance: {_share(measured, self.kind)} are right "
            f"(chance: {100 * measured.chance:.2f} %)"
        )
        if not self.recipe.config.runtime.check_accuracy:
            self.recipe.session.reporter.warn(
                f"{text} (used anyway: {self.where}.check_accuracy=false)"
            )
            return
        raise CheckpointError(f"{text}. {self._advice()}")

    def _check_order(self, logits: Tensor) -> None:
        """Compare the assumed class order with the other common ones."""
        classes, targets = self.recipe.dataset.classes, self.split.targets
        alternatives = _alternative_orders(classes)
        if not alternatives:
            return
        assumed = _dataset_order(classes)
        assumed_score = answers(logits, targets)
        for name, columns in alternatives.items():
            trial = logits[:, list(columns)]
            permuted_score = answers(trial, targets)
            if clearly_better(trial, logits, targets) and not permuted_score.near_chance:
                hint = " (torchvision's)" if name == "lexicographic" else ""
                keep = (
                    f" ({self.where}.class_order={assumed} overrides this check)"
                    if assumed in alternatives
                    else ""
                )
                raise CheckpointError(
                    f"{self.loaded.path}: its outputs are in {name} order{hint}, but the data "
                    f"set's classes are in {assumed} order: {_share(permuted_score, self.kind)} "
                    f"are right in {name} order, {assumed_score.top1:.2f} % in {assumed} order. "
                    f"Set {self.where}.class_order={name}{keep}."
                )
            if clearly_better(logits, trial, targets):
                self.recipe.session.reporter.say(
                    f"  {self.loaded.card.name}: classes in {assumed} order "
                    f"({assumed_score.top1:.2f} % of {assumed_score.count:,} {self.kind} images; "
                    f"{name}: {permuted_score.top1:.2f} %)"
                )
            elif not assumed_score.near_chance:
                self.recipe.session.reporter.warn(
                    f"{self.loaded.path}: {assumed_score.count:,} {self.kind} images do not show "
                    f"whether its classes are in {assumed} ({assumed_score.top1:.2f} %) or {name} "
                    f"order ({permuted_score.top1:.2f} %); {assumed} is assumed: set "
                    f"{self.where}.class_order"
                )

    def _advice(self) -> str:
        """Name the setting that fixes it, or list the likely causes."""
        lenient = f"{self.where}.check_accuracy=false uses it anyway."
        if self.loaded.new_head:
            return (
                "Its classifier is untrained, because the pretrained weights have a different "
                f"number of classes: select from their outputs, '{self.where}.classes=[...]', or "
                f"train it first (leave {self.where}.checkpoint out). {lenient}"
            )
        targets = evenly(self.split, TRIAL_IMAGES).targets
        best: tuple[Answers, Trial] | None = None
        for trial in self._trials():
            measured = answers(trial.logits, targets)
            if not measured.near_chance and (best is None or measured.right > best[0].right):
                best = (measured, trial)
        if best is not None:
            measured, trial = best
            return (
                f"With {trial.what}, {_share(measured, self.kind)} are right: set "
                f"{trial.setting}. {lenient}"
            )
        causes = f"a different data set, or a damaged file. {lenient}"
        if self.loaded.has_card:
            return f"Likely causes: {causes}"
        return (
            f"Likely causes, most likely first: a different class order ({self.where}.class_order)"
            f", different normalisation ({self.where}.mean, {self.where}.std; common values "
            f"were tried), a new or different classifier, {causes}"
        )

    def _trials(self) -> Iterator[Trial]:
        """Try the other common input settings; none if the checkpoint has a card."""
        card, classes = self.loaded.card, self.recipe.dataset.classes
        if self.loaded.has_card:
            return
        permuted: dict[str, tuple[int, ...]] = {}
        if card.outputs is None:
            permuted = _alternative_orders(classes)
        ways = {"": card.normalisation, **common_constants(len(card.normalisation.mean))}
        if len(card.normalisation.mean) == len(self.recipe.dataset.normalisation.mean):
            ways["the data set's"] = self.recipe.dataset.normalisation
        few = evenly(self.split, TRIAL_IMAGES)
        for name, constants in ways.items():
            logits = self._logits(few, constants)
            setting = format_constants(constants, self.where) if name else ""
            what = f"the constants of {name}" if name else ""
            if name:
                yield Trial(logits, setting, what)
            for order, columns in permuted.items():
                yield Trial(
                    logits[:, list(columns)],
                    f"{setting} {self.where}.class_order={order}".strip(),
                    f"{what}{' and ' if what else ''}its classes in {order} order",
                )

    def _logits(self, split: Split, constants: Normalisation) -> Tensor:
        """The teacher's float32 logits `[N, C]` for a split, normalised with `constants`."""
        model = self.recipe.session.place(
            placed(self.loaded.network, self.loaded.card, self.recipe.dataset, constants)
        )
        batches = eval_loader(
            self.recipe.session,
            split,
            self.recipe.dataset.normalisation,
            self.recipe.data,
            self.recipe.config.schedule.eval_batch_size,
        )
        logits, _ = collect_logits(model, batches, self.recipe.session.device, "fp32")
        return logits


def check_loaded(loaded: LoadedTeacher, recipe: TeacherRecipe, where: str) -> None:
    """Run `TeacherCheck.check` on validation or training images."""
    dataset = recipe.dataset
    split, kind = dataset.train, "training"
    if dataset.val is not None and len(dataset.val) >= min(FEW_IMAGES, len(dataset.train)):
        split, kind = dataset.val, "validation"
    recipe.session.place(loaded.network)
    TeacherCheck(loaded, recipe, where, evenly(split, MOST_IMAGES), kind).check()


def reading_warnings(
    logits: Tensor, targets: Tensor, config: TeacherConfig, dataset: Dataset
) -> list[str]:
    """Warn if logits `[N, C]` suggest a wrong class order, normalisation or data set."""
    measured = answers(logits, targets)
    if config.input.classes is None and config.input.class_order is None:
        for name, columns in _alternative_orders(dataset.classes).items():
            trial = logits[:, list(columns)]
            permuted_score = answers(trial, targets)
            if clearly_better(trial, logits, targets) and not permuted_score.near_chance:
                return [
                    f"with its outputs in {name} order {permuted_score.top1:.2f} % are right: "
                    f"set teacher.class_order={name}"
                ]
    if not measured.near_chance:
        return []
    return [
        f"that is near chance ({100 * measured.chance:.2f} %): are the order of its classes "
        "(teacher.class_order), its constants (teacher.mean, teacher.std) and its data right?"
    ]


def placed(
    network: nn.Module, card: NetworkCard, dataset: Dataset, constants: Normalisation | None = None
) -> nn.Module:
    """Wrap a network to take the loader's images and output the data set's classes."""
    normalisation = constants or card.normalisation
    return renormalised(network, dataset.normalisation, normalisation, card.resized, card.outputs)


def evenly(split: Split, count: int | None) -> Split:
    """Pick `count` evenly spaced images: splits are often sorted by class."""
    if count is None or count >= len(split):
        return split
    return split.select(torch.arange(count) * len(split) // count)


def _dataset_order(classes: tuple[str, ...]) -> str:
    """The name of the data set's class order."""
    named = [name for name, names in class_orders(classes).items() if names == classes]
    return named[0] if named else "its own"


def _alternative_orders(classes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """Common orders that differ from the data set's: name → output index of each class."""
    orders: dict[str, tuple[int, ...]] = {}
    for name, names in class_orders(classes).items():
        columns = permutation(names, classes)
        if names != classes and columns not in orders.values():
            orders[name] = columns
    return orders


def _share(measured: Answers, kind: str) -> str:
    return f"{measured.top1:.2f} % of {measured.count:,} {kind} images"
