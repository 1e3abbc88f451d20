"""Losses as torch criteria: the value of a run, lazy adapters, state, autocast, compile, DDP."""

import copy
from typing import Any

import pytest
import torch
from losses.cases import FILES, RESERVED, Case, make_case, settings_of
from losses.checks import REGISTRY
from torch import Tensor, nn

from kdrun import losses
from kdrun.errors import ConfigError, ShapeError
from kdrun.losses.base import DistillationLoss, feature_pairs
from kdrun.losses.margins import FixedMargin
from kdrun.types import Batch, Outputs

LOSSES = sorted(FILES)
BATCH = 6


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def arguments(case: Case) -> tuple[list[Tensor], list[Tensor]]:
    """What to call the loss of a case with: the student's and the teacher's tensors."""
    if case.term.reads_strong_view:
        assert case.student.strong is not None
        assert case.teacher.strong is not None
        return (
            [case.student.logits, case.student.strong.logits],
            [case.teacher.logits, case.teacher.strong.logits],
        )
    sides: list[list[Tensor]] = []
    for number, outputs in enumerate((case.student, case.teacher)):
        names = list(dict.fromkeys(pair[number] for pair in case.term.pairs))
        names += case.term.student_taps * (number == 0)
        tensors = [outputs.features[name] for name in names]
        if case.term.reads_embedding and case.term.id not in ("simkd", "wkd_l", "cat_kd"):
            assert outputs.embedding is not None
            tensors.append(outputs.embedding)
        if case.term.student_taps:
            tensors = [*tensors, outputs.logits]
        sides.append(tensors or [outputs.logits])
    return sides[0], sides[1]


def extra(case: Case) -> dict[str, Any]:
    """Constructor arguments that a run takes from its networks and data."""
    if case.term.id == "crd":
        return {"labels": torch.arange(80) % 5}
    if case.term.id == "srrl":
        return {"classifier": case.term._classifier[0]}
    if case.term.id == "cat_kd":
        student, teacher = case.term._classifiers
        return {"student_classifier": student, "teacher_classifier": teacher}
    if case.term.id == "nd":
        return {"class_means": case.term.directions}
    if case.term.id == "wkd_l":
        return {"classifier": nn.Linear(7, case.student.logits.shape[1])}  # the state has the costs
    if case.term.id == "ofd":
        count = len(case.term.margins)
        return {"norms": [nn.BatchNorm2d(t.shape[1]) for t in arguments(case)[1]][:count]}
    return {}


def criterion_of(case: Case, built: bool = True) -> DistillationLoss:
    """A new loss of the case's class with the settings of its YAML, made as Python makes it."""
    loss = case.term.id
    settings = {k: v for k, v in settings_of(loss).items() if k not in RESERVED}
    made = type(case.term)(**{**settings, **REGISTRY[loss].settings}, **extra(case))
    if built:  # for the batch size of the run
        made.build_for(*([(64, *t.shape[1:]) for t in side] for side in arguments(case)))
    return made


def call(criterion: nn.Module, case: Case, **logits: Tensor) -> Tensor:
    student, teacher = arguments(case)
    value: Tensor = criterion(student, teacher, case.batch.targets, case.batch.index, **logits)
    return value


def cased(loss: str, **changes: Any) -> Case:
    return make_case(loss, **{**REGISTRY[loss].settings, **changes})


def test_a_criterion_has_the_value_of_the_run(loss: str) -> None:
    case = cased(loss)
    if loss == "crd":  # the draws follow from the labels and the seed, here those of the run
        case.term.sampler = criterion_of(case).sampler
    criterion = criterion_of(case)
    criterion.load_state_dict(case.term.state_dict())
    more = {"teacher_logits": case.teacher.logits} if loss in ("srrl", "srd") else {}
    more |= {"student_logits": case.student.logits} if loss == "srd" else {}
    expected, found = case.loss(), call(criterion, case, **more)
    assert torch.equal(found, expected)
    inputs = [t for t in arguments(case)[0] if t.requires_grad]
    gradients = [
        torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)
        for value in (expected, found)
    ]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_pretraining_has_the_value_of_the_run(loss: str) -> None:
    case = cased(loss)
    if case.term.pretraining() is None:
        pytest.skip(f"{loss} has no phase before the main one")
    criterion = criterion_of(case)
    criterion.load_state_dict(case.term.state_dict())
    expected = case.term.pretrain_loss(case.student, case.teacher, case.batch)
    assert torch.equal(criterion.pretrain(*arguments(case)), expected)


def test_a_state_loads_into_a_new_instance(loss: str) -> None:
    case = cased(loss)
    lazy = criterion_of(case, built=False)
    assert lazy.symbol()  # which needs no layers
    call(lazy, case)
    state = copy.deepcopy(lazy.state_dict())
    fresh = criterion_of(case, built=False)
    fresh.load_state_dict(state)
    assert fresh.state_dict().keys() == state.keys()
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    lazy.eval(), fresh.eval()
    assert torch.equal(call(lazy, case), call(fresh, case))


def test_shapes_build_the_same_adapters_as_tensors(loss: str) -> None:
    case = cased(loss)
    from_tensors = criterion_of(case, built=False).build_for(*arguments(case))
    shapes = [[tuple(t.shape) for t in side] for side in arguments(case)]
    from_shapes = criterion_of(case, built=False).build_for(*shapes)
    found, expected = (
        {name: tensor.shape for name, tensor in one.state_dict().items()}
        for one in (from_shapes, from_tensors)
    )
    assert found == expected


def test_autocast_changes_nothing(loss: str) -> None:
    case = cased(loss)
    criterion = criterion_of(case)
    twin = copy.deepcopy(criterion)
    with torch.autocast("cpu", torch.bfloat16):
        found = call(criterion, case)
    assert found.dtype == torch.float32
    assert torch.equal(found, call(twin, case))


@pytest.mark.parametrize("loss", ["kd", "dkd", "sp", "fitnet", "crd"])
def test_it_compiles(loss: str) -> None:  # test_every_loss.py compiles the same forwards
    case = cased(loss)
    criterion = criterion_of(case)
    twin = copy.deepcopy(criterion)
    torch._dynamo.reset()
    compiled = torch.compile(criterion, backend="eager", fullgraph=True)
    torch.testing.assert_close(call(compiled, case), call(twin, case))


def test_wrong_shapes_are_rejected(loss: str) -> None:
    case = cased(loss)
    criterion = criterion_of(case)
    student, teacher = arguments(case)
    fewer = [tensor[:-1] for tensor in teacher]
    wrong = [(student, fewer), ([t[..., 0] for t in student if t.dim() == 2], teacher), ([], [])]
    if loss == "ce":
        wrong = [([t[..., 0] for t in student], teacher)]
    for bad in wrong:
        with pytest.raises(ShapeError, match=r"\[batch|must be|must have|got") as caught:
            criterion(*bad, case.batch.targets, case.batch.index)
        assert str(caught.value).count(". ") == 0
        assert isinstance(caught.value, ConfigError)
        assert isinstance(caught.value, ValueError)


def test_labels_and_positions_are_asked_for(loss: str) -> None:
    case = cased(loss)
    criterion = criterion_of(case)
    if case.term.reads_labels:
        with pytest.raises(ShapeError, match=r"targets are required: the classes as int64 \[6\]"):
            criterion(*arguments(case))
        with pytest.raises(ShapeError, match="targets must be the classes"):
            criterion(*arguments(case), torch.zeros(BATCH, 5), case.batch.index)
    if case.term.reads_indices:
        with pytest.raises(ShapeError, match="indices are required"):
            criterion(*arguments(case), case.batch.targets)


def test_adapters_refuse_other_widths() -> None:
    hints = losses.FitNet().build_for((6, 4, 8, 8), (6, 8, 4, 4))
    with pytest.raises(ShapeError, match=r"shape \[batch, 4, 8, 8\], got \[6, 5, 8, 8\]"):
        hints(torch.zeros(6, 5, 8, 8), torch.zeros(6, 8, 4, 4))
    vid = losses.VID().build_for((6, 4, 8, 8), (6, 8, 8, 8))
    assert vid(torch.zeros(6, 4, 16, 16), torch.zeros(6, 8, 16, 16)).isfinite()


def test_distributed(tmp_path: Any) -> None:
    from torch import distributed
    from torch.nn.parallel import DistributedDataParallel

    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        hints = losses.FitNet().build_for((6, 4, 8, 8), (6, 8, 4, 4))
        wrapped = DistributedDataParallel(hints)
        s, t = torch.randn(6, 4, 8, 8), torch.randn(6, 8, 4, 4)
        wrapped(s, t).backward()
        assert all(p.grad is not None for p in hints.parameters())
    finally:
        distributed.destroy_process_group()


def test_the_memory_follows_the_steps_by_itself() -> None:
    labels = torch.arange(20) % 4
    by_itself, by_hand = (losses.CRD(labels=labels, negatives=8) for _ in range(2))
    by_itself.build_for((4, 6), (4, 10))
    by_hand.load_state_dict(by_itself.state_dict())
    for start in (0, 4, 8):
        index = torch.arange(start, start + 4)
        pair = torch.randn(4, 6), torch.randn(4, 10)
        first, second = (crd(*pair, labels[index], index) for crd in (by_itself, by_hand))
        assert torch.equal(first, second)
        by_hand.after_step()


def test_the_teacher_gets_no_gradient(loss: str) -> None:
    case = cased(loss)
    student, teacher = arguments(case)
    teacher = [t.clone().requires_grad_() for t in teacher]
    value = criterion_of(case)(student, teacher, case.batch.targets, case.batch.index)
    if value.requires_grad:
        found = torch.autograd.grad(value, teacher, allow_unused=True)
        assert all(gradient is None or not gradient.any() for gradient in found)


def test_what_needs_modules_says_so() -> None:
    rows = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ConfigError, match=r"SRRL\(classifier=teacher.fc\)"):
        losses.SRRL()(torch.randn(4, 6), torch.randn(4, 8))
    with pytest.raises(ConfigError, match=r"CRD\(labels=train_labels\)"):
        losses.CRD()(torch.randn(4, 6), torch.randn(4, 8), rows, rows)
    with pytest.raises(ConfigError, match=r"SimKD\(classifier=teacher.fc\)"):
        losses.SimKD()(torch.randn(4, 6, 2, 2), torch.randn(4, 8, 2, 2))


def test_given_modules_are_used_and_not_saved() -> None:
    classifier = nn.Linear(8, 3)
    srrl = losses.SRRL(classifier=classifier)
    simkd = losses.SimKD(classifier=classifier)
    assert srrl(torch.randn(4, 6), torch.randn(4, 8)).isfinite()
    assert simkd(torch.randn(4, 6, 4, 4), torch.randn(4, 8, 2, 2)).isfinite()
    assert simkd.classify(torch.randn(4, 6, 4, 4)).shape == (4, 3)
    for made in (srrl, simkd):
        assert not any(parameter is classifier.weight for parameter in made.parameters())
    ofd = losses.OFD(norms=[nn.BatchNorm2d(8)])
    ofd(torch.randn(4, 6, 4, 4), torch.randn(4, 8, 4, 4))
    assert isinstance(ofd.margins[0], FixedMargin)


def test_every_loss_has_its_names() -> None:
    classes = {getattr(losses, name) for name in losses.__all__}
    assert {cls.id for cls in classes if "id" in cls.__dict__} == set(FILES)
    for short, (module, name) in losses.NAMES.items():
        assert getattr(losses, short) is getattr(losses, name)
        assert getattr(losses, short).__module__ == f"kdrun.losses.{module}"
        assert {short, name} <= set(losses.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        losses.Nothing  # noqa: B018


class Mine(DistillationLoss):
    """A user's loss, written for an objective."""

    id = "mine"
    full_name = "Mine"

    def __init__(self) -> None:
        super().__init__(["stage1"])

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        ((s, t),) = feature_pairs(self, student, teacher)
        return (s.mean((2, 3)) - t.mean((2, 3))).square().mean()


def test_a_users_loss_is_a_criterion_too() -> None:
    s, t = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 2, 2)
    assert torch.equal(Mine()(s, t), (s.mean((2, 3)) - t.mean((2, 3))).square().mean())
