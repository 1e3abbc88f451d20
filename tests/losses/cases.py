"""Terms built as a run builds them, with made-up or real outputs to put in.

`make_case("kd")` gives the term of configs/loss/kd.yaml with adapters for a pair of networks, and
random outputs of that pair's shapes. `train("kd", folder)` trains a student on the digits.
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from kdrun import configs
from kdrun.config import build
from kdrun.config.schema import (
    AugmentConfig,
    DatasetConfig,
    LossConfig,
    NetworkConfig,
    RuntimeConfig,
    ScheduleConfig,
)
from kdrun.data.dataset import Dataset, open_dataset
from kdrun.data.loaders.loaders import EvalLoader
from kdrun.distillation.connect import EmbeddingSource, final_student, tap_networks
from kdrun.distillation.networks import Member, new_network
from kdrun.distillation.session import Session
from kdrun.distillation.train import Recipe, Trained, run_training
from kdrun.engine.checkpoint import CheckpointFolder
from kdrun.engine.interrupt import StopRequest
from kdrun.errors import Interrupted
from kdrun.losses.base import DistillationLoss
from kdrun.losses.ce import CrossEntropy
from kdrun.losses.objective import Objective, WeightedLoss, build_objective
from kdrun.models.features.taps import FeatureExtractor
from kdrun.schemes.offline import Offline
from kdrun.schemes.supervised import Supervised
from kdrun.teachers.class_embeddings import ClassEmbeddings
from kdrun.types import Batch, Outputs
from kdrun.ui.reporter import Reporter

FOLDER = Path(configs.__file__).parent / "loss"
FILES = {path.stem: path for path in sorted(FOLDER.rglob("*.yaml"))}
RESERVED = ("_target_", "weight", "warmup_epochs", "decay_epochs", "decay_after")


def _conv(*widths: int) -> NetworkConfig:
    return NetworkConfig("cnn", "kdrun.models.cnn.ConvNet", {"widths": list(widths)})


@dataclass(frozen=True)
class Pair:
    """Two networks and the images `[channels, size, size]` they take."""

    teacher: NetworkConfig
    student: NetworkConfig
    channels: int = 1
    size: int = 8


PAIRS = {
    "cnn": Pair(_conv(6, 8, 12), _conv(4, 8)),
    "same": Pair(_conv(4, 8), _conv(4, 8)),
    "mlp": Pair(
        _conv(6, 8, 12),
        NetworkConfig("mlp", "kdrun.models.mlp.MLP", {"hidden": [16, 10]}),
    ),
    "mobilenet": Pair(
        NetworkConfig(
            "resnet8", "kdrun.models.resnet.ResNet", {"depth": 8, "widths": [8, 8, 16, 24]}
        ),
        NetworkConfig(
            "mobilenetv2", "kdrun.models.mobilenetv2.MobileNetV2", {"width": 0.5, "expansion": 2}
        ),
        channels=3,
        size=32,
    ),
}


@dataclass
class Case:
    """A built term and outputs of the right shapes; the student's are leaves of the graph."""

    term: DistillationLoss
    student: Outputs
    teacher: Outputs
    batch: Batch

    def inputs(self) -> list[Tensor]:
        """The student's tensors."""
        return tensors_of(self.student)

    def loss(self) -> Tensor:
        """The term's value."""
        return self.term(self.student, self.teacher, self.batch)

    def changed(self, change: Callable[[Tensor, str], Tensor]) -> "Case":
        """The same with `change(tensor, kind)` of every tensor; kind: logits or features."""
        return replace(
            self,
            student=leaves(map_outputs(self.student, change)),
            teacher=map_outputs(self.teacher, change),
        )


def settings_of(loss: str) -> dict[str, Any]:
    """The node of a loss in its YAML: `_target_`, weight, parameters."""
    (node,) = yaml.safe_load(FILES[loss].read_text()).values()
    return dict(node)


def make_term(loss: str, **settings: Any) -> WeightedLoss:
    """The term of a loss's YAML with some parameters replaced, not yet built."""
    node = settings_of(loss)
    kwargs = {k: v for k, v in node.items() if k not in RESERVED} | settings
    term = build.call(node["_target_"], kwargs, f"loss.{loss}")
    assert isinstance(term, DistillationLoss)
    epochs = {key: node[key] for key in ("warmup_epochs", "decay_epochs") if key in node}
    return WeightedLoss(term, float(node.get("weight", 1.0)), **epochs)


def make_objective(*losses: str, **settings: Any) -> Objective:
    """The objective of `loss=[...]` with each YAML's own weights.

    settings: parameters of the first, which may include `weight`.
    """
    terms = {}
    for number, loss in enumerate(losses):
        node = settings_of(loss) | (settings if number == 0 else {})
        kwargs = {k: v for k, v in node.items() if k not in RESERVED}
        epochs = {key: node[key] for key in ("warmup_epochs", "decay_epochs") if key in node}
        weight = float(node.get("weight", 1.0))
        terms[loss] = LossConfig(loss, node["_target_"], weight, kwargs, **epochs)
    return build_objective(terms, None, None, None, None)


def make_case(
    loss: str, pair: str = "cnn", batch: int = 6, classes: int = 5, seed: int = 0, **settings: Any
) -> Case:
    """The term of a loss built for a pair of networks, and random outputs of their shapes."""
    weighted = make_term(loss, **settings)
    dataset = made_up_data(PAIRS[pair].channels, PAIRS[pair].size, classes)
    student, teacher = tap(Objective(CrossEntropy(), 1.0, {loss: weighted}), pair, dataset, seed)
    images = torch.zeros(batch, *dataset.train.shape)
    with torch.no_grad():
        shapes = student.eval()(images), teacher.eval()(images)
    draw = torch.Generator().manual_seed(seed)
    found = [map_outputs(outputs, lambda t, kind: _random(t, kind, draw)) for outputs in shapes]
    if weighted.loss.reads_strong_view:
        for outputs, shape in zip(found, shapes, strict=True):
            outputs.strong = map_outputs(shape, lambda t, kind: _random(t, kind, draw))
    targets = torch.randint(classes, (batch,), generator=draw)
    index = torch.randperm(len(dataset.train), generator=draw)[:batch]
    seen = Batch(torch.randn(images.shape, generator=draw), targets, index)
    return Case(weighted.loss.train(), leaves(found[0]), found[1], seen)


def tap(
    objective: Objective,
    pair: str,
    dataset: Dataset,
    seed: int = 0,
    weights: dict[str, Tensor] | None = None,
) -> tuple[nn.Module, nn.Module]:
    """(student, teacher) of a pair with the taps that the objective reads; builds its terms.

    weights: the teacher's, instead of random ones.
    """
    members = []
    for config, where in ((PAIRS[pair].student, "student"), (PAIRS[pair].teacher, "teacher")):
        network = new_network(config, dataset, seed + (where == "teacher"), where)
        if weights is not None and where == "teacher":
            network.load_state_dict(weights)
        members.append(Member(network, config, dataset.normalisation))
    kept = final_student(objective, members[0], members[1:], dataset, seed)
    student, (teacher,) = tap_networks(
        objective, kept, members[1:], dataset, 64, seed, _embeddings_of(dataset)
    )
    return student, teacher


def _embeddings_of(dataset: Dataset) -> EmbeddingSource:
    """Statistics of a teacher's embeddings over the training images, kept nowhere."""

    def source(position: int, extractor: FeatureExtractor, outputs: Outputs) -> ClassEmbeddings:
        def forward() -> Iterator[tuple[Tensor, Tensor]]:
            loader = EvalLoader(dataset.train, dataset.normalisation, 256, "cpu", resident=True)
            for batch in loader:
                with torch.no_grad():
                    yield extractor.eval()(batch.images).embedding, batch.index

        targets, classes = dataset.train.targets, len(dataset.classes)
        return ClassEmbeddings(Path("/dev/null"), "", targets, classes, forward)

    return source


@functools.cache
def made_up_data(channels: int, size: int, classes: int) -> Dataset:
    """A synthetic data set of 80 images."""
    kwargs = {"num_classes": classes, "image_size": size, "channels": channels, "train_size": 80}
    config = DatasetConfig("made-up", "kdrun.data.sources.synthetic", kwargs)
    return open_dataset(config, 0.0, Path())


def map_outputs(outputs: Outputs, change: Callable[[Tensor, str], Tensor]) -> Outputs:
    """Outputs with every tensor replaced by `change(tensor, kind)`; kind: logits or features."""
    return Outputs(
        change(outputs.logits, "logits"),
        {name: change(tensor, "features") for name, tensor in outputs.features.items()},
        None if outputs.embedding is None else change(outputs.embedding, "features"),
        None if outputs.strong is None else map_outputs(outputs.strong, change),
    )


def tensors_of(outputs: Outputs) -> list[Tensor]:
    """All tensors of some outputs, in a fixed order."""
    found: list[Tensor] = []
    map_outputs(outputs, lambda tensor, _: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def with_tensors(outputs: Outputs, tensors: list[Tensor]) -> Outputs:
    """The outputs with their tensors replaced, in the order of `tensors_of`."""
    rest = iter(tensors)
    return map_outputs(outputs, lambda tensor, _: next(rest))


def leaves(outputs: Outputs) -> Outputs:
    """Copies of all tensors that ask for gradients."""
    return map_outputs(outputs, lambda tensor, _: tensor.detach().clone().requires_grad_())


def _random(like: Tensor, kind: str, draw: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=draw) * (3.0 if kind == "logits" else 1.0)


# Training on the digits.

SCHEDULE = ScheduleConfig(epochs=5, batch_size=32, lr=0.1)


class StopAfter(Reporter):
    """Says nothing, and asks to stop after so many steps."""

    def __init__(self, stop: StopRequest, steps: int | None) -> None:
        super().__init__("quiet")
        self.stop = stop
        self.steps = steps
        self.done = 0

    def step_done(self, batches: int, sums: Any, images: int) -> None:
        self.done += 1
        self.stop.requested = self.done == self.steps


@functools.cache
def digits() -> Dataset:
    """The handwritten digits, a tenth held out."""
    return open_dataset(DatasetConfig("digits", "kdrun.data.sources.digits"), 0.1, Path())


@functools.cache
def _teacher_weights(folder: Path) -> dict[str, Tensor]:
    """Those of the digits' teacher, trained once for all tests."""
    config = PAIRS["digits"].teacher
    network = new_network(config, digits(), 7, "teacher")
    _run(
        Supervised(FeatureExtractor(network), Objective(CrossEntropy(), 1.0, {})),
        folder,
        None,
        replace(SCHEDULE, epochs=6),
    )
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


PAIRS["digits"] = Pair(_conv(16, 32), _conv(8, 16))


@dataclass
class Run:
    """What a training left: its figures, all trained tensors, the teacher before and after.

    rows: of the main phase's epochs. early: of pre-training's.
    """

    trained: Trained
    state: dict[str, Tensor]
    teacher_before: dict[str, Tensor]
    teacher: nn.Module
    rows: list[dict[str, Any]]
    early: list[dict[str, Any]]


def train(
    loss: str,
    folder: Path,
    stop_after: int | None = None,
    schedule: ScheduleConfig = SCHEDULE,
    **settings: Any,
) -> Run | None:
    """Train a student on the digits with the loss's own weights; go on if begun.

    settings: parameters of the loss. None when it was stopped after `stop_after` steps.
    """
    objective = make_objective(loss, **settings)
    before = _teacher_weights(folder.parents[1] / "teacher")
    student, teacher = tap(objective, "digits", digits(), weights=before)
    scheme = Offline(student, [teacher], objective)
    try:
        trained = _run(scheme, folder, stop_after, schedule)
    except Interrupted:
        return None
    state = {name: tensor.clone() for name, tensor in scheme.state_dict().items()}
    rows = [row for row in trained.state.history if row["phase"] == "main"]
    early = [row for row in trained.state.history if row["phase"] != "main"]
    return Run(trained, state, before, teacher.network, rows, early)


def _run(scheme: Any, folder: Path, stop_after: int | None, schedule: ScheduleConfig) -> Trained:
    stop = StopRequest()
    runtime = RuntimeConfig(device="cpu", ui="quiet", output_root=str(folder))
    session = Session(runtime, torch.device("cpu"), 1, StopAfter(stop, stop_after), stop)
    data = DatasetConfig("digits", "kdrun.data.sources.digits")
    return run_training(
        scheme,
        session,
        digits(),
        Recipe(data, AugmentConfig(), schedule, 0),
        CheckpointFolder(folder),
        "test",
        lambda rows: None,
    )
