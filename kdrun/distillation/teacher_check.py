"""Whether a loaded teacher was read rightly: the order of its classes, and better than chance.

Both are measured on images that are not test images: the validation split, or training images
where it is missing or small. A teacher of another order, or near chance, is refused with the
setting that repairs it, where trying the usual ones finds it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kdrun.config.schema import DatasetConfig, TeacherConfig
from kdrun.data.class_order import class_orders
from kdrun.data.dataset import Dataset
from kdrun.data.images import Split
from kdrun.distillation.loaded_teacher import LoadedTeacher
from kdrun.distillation.networks import renormalised
from kdrun.distillation.session import Session, eval_loader
from kdrun.engine.metrics import collect_logits
from kdrun.errors import CheckpointError
from kdrun.models.card import NetworkCard
from kdrun.teachers.chance import Answers, answers, clearly_better
from kdrun.teachers.constants import common_constants, settings_words
from kdrun.teachers.outputs import permutation
from kdrun.types import Normalisation

MOST_IMAGES = 2000
TRIAL_IMAGES = 512
FEW_IMAGES = 200  # a smaller validation split gives way to the training images


@dataclass(frozen=True)
class Trial:
    """One way to read the same weights. setting: what to type for it. what: in words."""

    logits: Tensor
    setting: str
    what: str


@dataclass(frozen=True)
class TeacherCheck:
    """A loaded teacher on some images that are not test images.

    kind: which images, for messages. where: the teacher's name in settings.
    """

    loaded: LoadedTeacher
    config: TeacherConfig
    data: DatasetConfig
    dataset: Dataset
    session: Session
    where: str
    split: Split
    kind: str

    def check(self) -> None:
        """Raise CheckpointError for another order of the classes and for a teacher near chance.

        Near chance is only a warning with `teacher.check_accuracy=false`.
        """
        logits = self._logits(self.split, self.loaded.card.normalisation)
        if self.loaded.guesses_order:
            self._check_order(logits)
        found = answers(logits, self.split.targets)
        if not found.near_chance:
            return
        text = (
            f"{self.loaded.path} is near chance: {_share(found, self.kind)} are right "
            f"(chance: {100 * found.chance:.2f} %)"
        )
        if not self.config.runtime.check_accuracy:
            self.session.reporter.warn(f"{text} ({self.where}.check_accuracy=false: it is used)")
            return
        raise CheckpointError(f"{text}. {self._advice()}")

    def _check_order(self, logits: Tensor) -> None:
        """Compare the assumed order of the outputs with the other usual ones."""
        classes, targets = self.dataset.classes, self.split.targets
        others = _other_orders(classes)
        if not others:
            return
        assumed = _own_order(classes)
        mine = answers(logits, targets)
        for name, permuted in others.items():
            trial = logits[:, list(permuted)]
            other = answers(trial, targets)
            if clearly_better(trial, logits, targets) and not other.near_chance:
                hint = " (torchvision's)" if name == "lexicographic" else ""
                keep = (
                    f" ({self.where}.class_order={assumed} overrides this check)"
                    if assumed in others
                    else ""
                )
                raise CheckpointError(
                    f"{self.loaded.path}: its outputs are in {name} order{hint}, but the data "
                    f"set's classes are in {assumed} order: {_share(other, self.kind)} are right "
                    f"in {name} order, {mine.top1:.2f} % in {assumed} order. Set "
                    f"{self.where}.class_order={name}{keep}."
                )
            if clearly_better(logits, trial, targets):
                self.session.reporter.say(
                    f"  {self.loaded.card.name}: classes in {assumed} order "
                    f"({mine.top1:.2f} % of {mine.count:,} {self.kind} images; {name}: "
                    f"{other.top1:.2f} %)"
                )
            elif not mine.near_chance:
                self.session.reporter.warn(
                    f"{self.loaded.path}: {mine.count:,} {self.kind} images do not show whether "
                    f"its classes are in {assumed} ({mine.top1:.2f} %) or {name} order "
                    f"({other.top1:.2f} %); {assumed} is assumed: set {self.where}.class_order"
                )

    def _advice(self) -> str:
        """The setting that repairs it, or the likely causes."""
        lenient = f"{self.where}.check_accuracy=false uses it as it is."
        if self.loaded.new_head:
            return (
                "Its classifier is new and untrained, because the pretrained weights have another "
                f"number of classes: choose among their outputs, '{self.where}.classes=[...]', or "
                f"train it first (leave {self.where}.checkpoint out). {lenient}"
            )
        targets = evenly(self.split, TRIAL_IMAGES).targets
        best: tuple[Answers, Trial] | None = None
        for trial in self._trials():
            found = answers(trial.logits, targets)
            if not found.near_chance and (best is None or found.right > best[0].right):
                best = (found, trial)
        if best is not None:
            found, trial = best
            return (
                f"With {trial.what}, {_share(found, self.kind)} are right: set "
                f"{trial.setting}. {lenient}"
            )
        causes = f"other data than its own, or a damaged file. {lenient}"
        if self.loaded.has_card:
            return f"Likely causes: {causes}"
        return (
            f"Likely causes, in this order: another order of the classes ({self.where}.class_order)"
            f", other constants ({self.where}.mean, {self.where}.std; the usual ones were tried), "
            f"a new or different classifier, {causes}"
        )

    def _trials(self) -> Iterator[Trial]:
        """The weights read in other usual ways; none where a card says how."""
        card, classes = self.loaded.card, self.dataset.classes
        if self.loaded.has_card:
            return
        permuted: dict[str, tuple[int, ...]] = {}
        if card.outputs is None:
            permuted = _other_orders(classes)
        ways = {"": card.normalisation, **common_constants(len(card.normalisation.mean))}
        if self.config.input.mean is not None and len(card.normalisation.mean) == len(
            self.dataset.normalisation.mean
        ):
            ways["the data set's"] = self.dataset.normalisation
        few = evenly(self.split, TRIAL_IMAGES)
        for name, constants in ways.items():
            logits = self._logits(few, constants)
            setting = settings_words(constants, self.where) if name else ""
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
        """What the teacher says of a split `[N, C]`, in float32, with these constants."""
        model = self.session.place(
            placed(self.loaded.network, self.loaded.card, self.dataset, constants)
        )
        batches = eval_loader(
            self.session,
            split,
            self.dataset.normalisation,
            self.data,
            self.config.schedule.eval_batch_size,
        )
        logits, _ = collect_logits(model, batches, self.session.device, "fp32")
        return logits


def check_loaded(
    loaded: LoadedTeacher,
    config: TeacherConfig,
    data: DatasetConfig,
    dataset: Dataset,
    session: Session,
    where: str,
) -> None:
    """`TeacherCheck.check` on images of `dataset` that are not test images."""
    split, kind = dataset.train, "training"
    if dataset.val is not None and len(dataset.val) >= min(FEW_IMAGES, len(dataset.train)):
        split, kind = dataset.val, "validation"
    session.place(loaded.network)
    few = evenly(split, MOST_IMAGES)
    TeacherCheck(loaded, config, data, dataset, session, where, few, kind).check()


def reading_warnings(
    logits: Tensor, targets: Tensor, config: TeacherConfig, dataset: Dataset
) -> list[str]:
    """What measured logits `[N, C]` say against the way in which bare weights were read."""
    found = answers(logits, targets)
    if config.input.classes is None and config.input.class_order is None:
        for name, permuted in _other_orders(dataset.classes).items():
            trial = logits[:, list(permuted)]
            other = answers(trial, targets)
            if clearly_better(trial, logits, targets) and not other.near_chance:
                return [
                    f"with its outputs in {name} order {other.top1:.2f} % are right: "
                    f"set teacher.class_order={name}"
                ]
    if not found.near_chance:
        return []
    return [
        f"that is near chance ({100 * found.chance:.2f} %): are the order of its classes "
        "(teacher.class_order), its constants (teacher.mean, teacher.std) and its data right?"
    ]


def placed(
    network: nn.Module, card: NetworkCard, dataset: Dataset, constants: Normalisation | None = None
) -> nn.Module:
    """A network that takes the loader's images and answers with the data set's classes."""
    own = constants or card.normalisation
    return renormalised(network, dataset.normalisation, own, card.resized, card.outputs)


def evenly(split: Split, count: int | None) -> Split:
    """`count` images of a split, spread over all of it, for splits are often sorted by class."""
    if count is None or count >= len(split):
        return split
    return split.select(torch.arange(count) * len(split) // count)


def _own_order(classes: tuple[str, ...]) -> str:
    """The name of the order in which the data set has its classes."""
    named = [name for name, names in class_orders(classes).items() if names == classes]
    return named[0] if named else "its own"


def _other_orders(classes: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The usual orders that differ from the data set's: name → the output of each class."""
    found: dict[str, tuple[int, ...]] = {}
    for name, names in class_orders(classes).items():
        columns = permutation(names, classes)
        if names != classes and columns not in found.values():
            found[name] = columns
    return found


def _share(found: Answers, kind: str) -> str:
    return f"{found.top1:.2f} % of {found.count:,} {kind} images"
