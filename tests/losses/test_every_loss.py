"""What must hold of every loss there is, whatever its formula: see `losses/checks.py`."""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from losses.cases import (
    FILES,
    RESERVED,
    SCHEDULE,
    Case,
    leaves,
    make_case,
    make_term,
    map_outputs,
    settings_of,
    tensors_of,
    train,
    with_tensors,
)
from losses.checks import CHECKS, REGISTRY
from torch import Tensor, nn

from kdrun.errors import ConfigError
from kdrun.losses.base import DistillationLoss
from kdrun.report.settings import SOFT_LOSSES
from kdrun.types import Batch, Mixture, Outputs

LOSSES = sorted(FILES)
FEWEST = 30
LEARNT = 80.0  # percent of the digits' test images; chance is 10


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=LOSSES)
def loss(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    assert name in REGISTRY, f"add {name} to REGISTRY in tests/losses/checks.py"
    return name


def case_of(loss: str, check: str, **changes: int | str) -> Case:
    """The loss's case, or a skip where the registry says that the check does not apply."""
    skip_unless(loss, check)
    return make_case(loss, **changes, **REGISTRY[loss].settings)  # type: ignore[arg-type]


def skip_unless(loss: str, check: str) -> None:
    reason = REGISTRY[loss].skip.get(check)
    if reason is not None:
        pytest.skip(f"{check} does not apply to {loss}: {reason}")


def values_of(case: Case) -> Iterator[Tensor]:
    """The term's value, and that of its pre-training if it has one."""
    yield case.loss()
    if case.term.pretraining() is not None:
        yield case.term.pretrain_loss(case.student, case.teacher, case.batch)


def assert_finite(case: Case) -> None:
    """A finite float32 scalar whose gradients are finite for student and adapters."""
    wanted = [*case.inputs(), *(p for p in case.term.parameters() if p.requires_grad)]
    for value in values_of(case):
        assert value.shape == ()
        assert value.dtype == torch.float32
        assert torch.isfinite(value), value
        if not value.requires_grad:
            continue
        for gradient in torch.autograd.grad(value, wanted, allow_unused=True):
            assert gradient is None or torch.isfinite(gradient).all()


def test_there_is_a_loss_for_every_entry() -> None:
    assert len(FILES) >= FEWEST
    assert set(REGISTRY) == set(FILES)
    for name, entry in REGISTRY.items():
        assert set(entry.skip) <= set(CHECKS), name
        assert set(entry.refuses) <= {"mlp", "mobilenet"}, name
        assert entry.against, name


def test_it_says_what_it_is(loss: str) -> None:
    cls = type(make_term(loss, **REGISTRY[loss].settings).loss)
    node = settings_of(loss)
    first = FILES[loss].read_text().splitlines()[0]
    assert cls.id == loss
    assert cls.__module__ == f"kdrun.losses.{loss}"
    assert cls.full_name
    assert cls.formula
    assert cls.source
    assert inspect.getdoc(cls)
    assert first.startswith("# ")
    assert first.endswith(".")
    parameters = set(inspect.signature(cls).parameters) - set(cls.python_only)
    parameters -= {"adapter"}  # a setting of the schema, written only where it is set
    assert set(node) - set(RESERVED) <= parameters
    if loss != "ce":
        assert set(node) - set(RESERVED) == parameters, "the YAML shows every parameter"
        assert "weight" in node
    if cls.variants:
        assert node["variant"] == next(iter(cls.variants)), "the default variant comes first"


def test_labels_are_read_only_where_it_says_so(loss: str) -> None:
    case, twin = (make_case(loss, **REGISTRY[loss].settings) for _ in range(2))
    if not case.term.reads_labels:
        twin.batch.targets.fill_(-1)  # what a transfer set without labels has
        twin.batch.mixture = Mixture(twin.batch.targets, torch.rand(len(twin.batch)))
        for value, same in zip(values_of(case), values_of(twin), strict=True):
            assert torch.equal(value, same)
        return
    twin.batch.targets.add_(1).remainder_(case.student.logits.shape[1])
    torch.manual_seed(0)
    value = case.loss()
    torch.manual_seed(0)
    assert not torch.equal(value, twin.loss())


class Pretraining(nn.Module):
    """A term's pre-training loss as a module of its own."""

    def __init__(self, term: DistillationLoss) -> None:
        super().__init__()
        self.term = term

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        return self.term.pretrain_loss(student, teacher, batch)


def test_gradcheck(loss: str) -> None:
    case = case_of(loss, "gradcheck", batch=4)
    term = case.term.double()
    teacher = map_outputs(case.teacher, lambda tensor, _: tensor.double())
    check_gradients(case, term, teacher)
    if term.pretraining() is not None:
        check_gradients(case, Pretraining(term), teacher)


def check_gradients(case: Case, module: nn.Module, teacher: Outputs) -> None:
    """Finite differences for the student's tensors and all trainable parameters."""
    student = [t.detach().double().requires_grad_() for t in case.inputs()]
    adapters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    with torch.no_grad():  # whatever the first batch fixes is fixed before
        module(with_tensors(case.student, student), teacher, case.batch)

    def value(*inputs: Tensor) -> Tensor:
        torch.manual_seed(0)
        outputs = with_tensors(case.student, list(inputs[: len(student)]))
        state = {name: buffer.clone() for name, buffer in module.named_buffers()}
        state |= dict(zip(adapters, inputs[len(student) :], strict=True))
        found: Tensor = torch.func.functional_call(module, state, (outputs, teacher, case.batch))
        return found

    inputs = [*student, *(p.detach().clone().requires_grad_() for p in adapters.values())]
    assert torch.autograd.gradcheck(value, inputs, fast_mode=True, atol=1e-6, rtol=1e-4)


def test_equal(loss: str) -> None:
    case = case_of(loss, "equal", pair="same")
    case = replace(case, student=leaves(case.teacher))
    assert_finite(case)
    assert all(abs(float(value.detach())) < 1e-5 for value in values_of(case))


def _extreme(tensor: Tensor, kind: str) -> Tensor:
    return 1e4 * tensor.detach().sign() if kind == "logits" else tensor.detach()


def _zeros(tensor: Tensor, kind: str) -> Tensor:
    return torch.zeros_like(tensor)


def _duplicates(tensor: Tensor, kind: str) -> Tensor:
    return tensor.detach()[:1].expand_as(tensor)


def _constant(tensor: Tensor, kind: str) -> Tensor:
    return torch.full_like(tensor, 0.7)


def _bf16(tensor: Tensor, kind: str) -> Tensor:
    return tensor.detach().bfloat16()


@pytest.mark.parametrize("change", [_extreme, _zeros, _duplicates, _constant, _bf16])
def test_degenerate_outputs(loss: str, change: Callable[[Tensor, str], Tensor]) -> None:
    case = case_of(loss, change.__name__.removeprefix("_"))
    assert_finite(case.changed(change))


def test_single(loss: str) -> None:
    case = case_of(loss, "single", batch=1)
    assert_finite(case)


def test_two_classes(loss: str) -> None:
    assert_finite(case_of(loss, "two_classes", classes=2))
    assert_finite(make_case(loss, batch=1, classes=2, **REGISTRY[loss].settings))


@pytest.mark.parametrize("pair", ["mlp", "mobilenet"])
def test_cross_architecture(loss: str, pair: str) -> None:
    skip_unless(loss, pair)
    if pair in REGISTRY[loss].refuses:
        with pytest.raises(ConfigError):
            make_case(loss, pair, **REGISTRY[loss].settings)
        return
    assert_finite(make_case(loss, pair, batch=3, **REGISTRY[loss].settings))


def test_compile(loss: str) -> None:
    case = case_of(loss, "compile")
    twin = case_of(loss, "compile")
    torch._dynamo.reset()
    compiled = torch.compile(twin.term, fullgraph=True, backend="eager")
    torch.manual_seed(0)
    expected = case.loss()
    torch.manual_seed(0)
    found = compiled(twin.student, twin.teacher, twin.batch)
    torch.testing.assert_close(found, expected)
    assert len(tensors_of(twin.student)) == len(tensors_of(case.student))


def test_learns(loss: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    skip_unless(loss, "learns")
    entry = REGISTRY[loss]
    folder = tmp_path_factory.getbasetemp() / "losses" / loss
    run = train(loss, folder / "learns", **entry.settings | entry.training | entry.learning)
    assert run is not None
    values = [row[f"train/{loss}"] for row in run.rows]
    if "falls" not in entry.skip:
        assert values[-1] < values[0]
    if run.early:
        values = [row[f"train/{loss}_pretrain"] for row in run.early]
        assert values[-1] < values[0]
    assert run.trained.test.metrics.top1 > LEARNT
    for name, tensor in run.teacher.state_dict().items():
        assert torch.equal(tensor, run.teacher_before[name]), "the teacher has changed"
    assert all(p.grad is None for p in run.teacher.parameters())


def test_resumes(loss: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """One epoch of 41 steps, stopped in the middle; with pre-training, in its second epoch."""
    skip_unless(loss, "resume")
    entry = REGISTRY[loss]
    settings = entry.settings | entry.training
    folder = tmp_path_factory.getbasetemp() / "losses" / loss
    epoch = replace(SCHEDULE, epochs=1)
    whole = train(loss, folder / "whole", schedule=epoch, **settings)
    assert whole is not None
    stop = 50 if whole.early else 25
    assert train(loss, folder / "part", stop, epoch, **settings) is None
    resumed = train(loss, folder / "part", schedule=epoch, **settings)
    assert resumed is not None
    assert resumed.state.keys() == whole.state.keys()
    for name, tensor in whole.state.items():
        assert torch.equal(tensor, resumed.state[name]), name


def rows_of(case: Case, rows: slice) -> Tensor:
    """The loss's value for a part of the batch; adapters use fixed batch-norm statistics."""
    for module in case.term.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    student, teacher = (
        map_outputs(outputs, lambda tensor, _: tensor[rows])
        for outputs in (case.student, case.teacher)
    )
    batch = Batch(case.batch.images[rows], case.batch.targets[rows], case.batch.index[rows])
    torch.manual_seed(0)
    with torch.no_grad():
        return case.term(student, teacher, batch)


def test_the_report_knows_soft_losses(loss: str) -> None:
    assert type(make_case(loss, **REGISTRY[loss].settings).term).soft == (loss in SOFT_LOSSES)


def test_a_loss_that_is_no_mean_over_samples_says_so(loss: str) -> None:
    """`compares_samples`, which the start of a run with `schedule.accumulate` reads."""
    case = make_case(loss, **REGISTRY[loss].settings)
    rows_of(case, slice(0, 6))  # sets what a loss keeps of its first batch
    whole = rows_of(case, slice(0, 6))
    halves = (rows_of(case, slice(0, 3)) + rows_of(case, slice(3, 6))) / 2
    is_mean = torch.allclose(whole, halves, rtol=1e-4, atol=1e-6)
    assert type(case.term).compares_samples == (not is_mean)
    documented = "Compares the samples of a batch" in str(type(case.term).__doc__)
    assert documented == (not is_mean)
