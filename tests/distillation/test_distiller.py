"""`kdrun.Distiller`: what a run trains, around any two modules."""

import copy
import math
import warnings
from typing import Any

import pytest
import torch
from losses.cases import FILES, PAIRS, made_up_data, make_objective
from torch import Tensor, nn

import kdrun
from kdrun.distillation.connect import connect
from kdrun.distillation.networks import Member, new_network
from kdrun.errors import ConfigError, ShapeError
from kdrun.losses import KD, RKD
from kdrun.models.external import torchvision_network
from kdrun.schemes.offline import Offline
from kdrun.types import Batch

DATA = made_up_data(3, 32, 5)
# What a loss needs to be minimised from the first step on, and to fit small data.
SETTINGS: dict[str, dict[str, Any]] = {
    "ab": {"pretrain_epochs": 0},
    "crd": {"negatives": 16},
    "fsp": {"connectors": True, "pretrain_epochs": 0},
}


def networks() -> tuple[nn.Module, nn.Module]:
    pair = PAIRS["mobilenet"]
    return (
        new_network(pair.student, DATA, 0, "student"),
        new_network(pair.teacher, DATA, 1, "teacher"),
    )


def batch(size: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(size, 3, 32, 32, generator=draw)
    return images, torch.arange(size) % 5, torch.arange(size)


def make(loss: Any = "kd", **settings: Any) -> kdrun.Distiller:
    student, teacher = networks()
    settings = {"example": batch()[0], "labels": DATA.train.targets} | settings
    return kdrun.Distiller(student, teacher, loss, **settings)


@pytest.mark.parametrize("loss", sorted(FILES))
def test_ten_lines_train_with_every_loss(loss: str) -> None:
    images, targets, indices = batch()
    train = [(images.flip(0), targets.flip(0)), batch(6)[:2]] if loss == "nd" else None
    distiller = make({loss: SETTINGS.get(loss, {})}, train=train)
    optimizer = torch.optim.SGD(distiller.parameters(), lr=0.01)
    before = copy.deepcopy(distiller.student.state_dict())
    for _ in range(2):
        out = distiller(images, targets, indices)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.isfinite(out.loss)
    assert set(out.parts) == {"ce", loss}
    torch.testing.assert_close(sum(out.weighted.values()), out.loss.detach())
    assert out.logits.shape == out.teacher_logits.shape == (4, 5)
    after = distiller.student.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_statistics_of_embeddings_come_from_the_training_batches() -> None:
    images, targets, _ = batch(10)
    train = [(images[:7], targets[:7]), (images[7:], targets[7:])]
    distiller = make(["nd", {"wkd_l": {"variant": "cka"}}], train=train)
    nd, wkd = distiller.scheme.objective.loss_list()
    teacher = distiller.scheme.frozen_teachers[0]
    embeddings = teacher.eval()(images).embedding.detach()
    means = torch.stack([embeddings[targets == c].mean(dim=0) for c in range(5)])
    torch.testing.assert_close(nd.directions, means / means.norm(dim=1, keepdim=True))
    assert wkd.cost.shape == (5, 5)
    assert distiller(images, targets).loss.isfinite()
    with pytest.raises(ConfigError, match=r"or Distiller\(train=batches\)"):
        make("nd")


@pytest.mark.parametrize("loss", ["kd", "sp", "fitnet", "reviewkd", "srrl", "semckd", "ofd"])
def test_it_is_what_a_run_trains(loss: str) -> None:
    student, teacher = networks()
    objective = make_objective(loss)
    config, other = PAIRS["mobilenet"].student, PAIRS["mobilenet"].teacher
    made = connect(
        objective,
        Member(student, config, DATA.normalisation),
        [Member(teacher, other, DATA.normalisation)],
        DATA,
        4,
        0,
    )
    scheme = Offline(made.student, made.teachers, objective)
    images, targets, indices = batch()
    expected = scheme(Batch(images, targets, indices))
    out = make(loss)(images, targets, indices)
    assert torch.equal(out.loss, expected.loss)
    assert torch.equal(out.logits, expected.logits)


def test_the_student_is_clean_and_the_teacher_frozen() -> None:
    student, teacher = networks()
    names = set(student.state_dict())
    weights = copy.deepcopy(teacher.state_dict())
    distiller = kdrun.Distiller(student, teacher, ["kd", "fitnet"], example=batch()[0], ce=1)
    distiller.train()
    out = distiller(*batch())
    out.loss.backward()
    assert distiller.student is student
    assert set(distiller.student.state_dict()) == names
    for module in [*student.modules(), *teacher.modules()]:
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not teacher.training
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert all(torch.equal(weights[name], t) for name, t in teacher.state_dict().items())
    trained = {id(p) for p in distiller.parameters()}
    assert {id(p) for p in student.parameters()} < trained
    assert not trained & {id(p) for p in teacher.parameters()}


def test_losses_by_name_settings_and_instance() -> None:
    distiller = make(["kd", {"sp": {"weight": 30}}, RKD()], T=2, alpha=0.8)
    assert distiller.describe() == "0.2*CE + 0.8*4*KL(T=2) + 30*SP(stage4) + 1*RKD(25*D + 50*A)"
    assert make(KD(temperature=3.0)).describe() == "0.1*CE + 0.9*9*KL(T=3)"
    for loss, problem in (
        ("kdd", "no loss 'kdd'. Did you mean 'kd'"),
        ({"sp": {"wight": 1}}, "no setting 'wight'. Did you mean 'weight'"),
        (["kd", "kd"], "kd is given twice"),
        ([], "loss is empty"),
        ("sp", "T=4 would change nothing"),
    ):
        with pytest.raises(ConfigError) as caught:
            make(loss, T=4)
        assert problem in str(caught.value)


def test_images_of_another_normalisation_are_converted_for_the_teacher() -> None:
    student, teacher = networks()
    images, targets, _ = batch()
    constants = {
        "normalisation": (0.5, 0.25),
        "teacher_normalisation": ((0.4, 0.5, 0.6), (0.2,) * 3),
    }
    distiller = kdrun.Distiller(student, teacher, example=images, **constants)
    mean = torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    expected = teacher((images * 0.25 + 0.5 - mean) / 0.2)
    torch.testing.assert_close(distiller(images, targets).teacher_logits, expected)
    with pytest.raises(ConfigError, match="say how yours come, normalisation="):
        kdrun.Distiller(
            student,
            teacher,
            example=images,
            teacher_normalisation=constants["teacher_normalisation"],
        )


def test_several_teachers_are_averaged() -> None:
    student, teacher = networks()
    other = networks()[1]
    distiller = kdrun.Distiller(student, [teacher, other], "kd", example=batch()[0])
    out = distiller(*batch())
    assert len(out.teacher_logits) == 2
    assert "averaged over 2 teachers" in distiller.describe()


def test_a_state_resumes() -> None:
    first, second = make(["kd", "fitnet"], ce=1), make(["kd", "fitnet"], ce=1, seed=5)
    images, targets, indices = batch()
    first(images, targets, indices).loss.backward()
    torch.optim.SGD(first.parameters(), lr=0.1).step()
    second.load_state_dict(first.state_dict())
    first.eval(), second.eval()
    assert torch.equal(first(images, targets).loss, second(images, targets).loss)


def test_phases_before_the_main_one() -> None:
    distiller = make("ab")
    assert list(distiller.pretraining) == ["ab"]
    with pytest.warns(UserWarning, match="ab trains for 30 epochs before the main phase"):
        distiller(*batch())
    distiller = make("ab")
    out = distiller(*batch(), pretrain="ab")
    assert out.loss > 0
    assert set(out.parts) == {"ab"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distiller(*batch()).parts["ab"] == 0
    with pytest.raises(ConfigError, match="pretrain='kd': ab has a phase"):
        distiller(*batch(), pretrain="kd")


def test_what_is_missing_is_said_in_a_sentence() -> None:
    images, targets, _ = batch()
    assert make(alpha=1)(images).loss.isfinite()
    with pytest.raises(ConfigError, match="includes CE"):
        make()(images)
    with pytest.raises(ShapeError, match=r"targets must be class numbers, int64 \[4\]"):
        make()(images, torch.zeros(4, 5))
    with pytest.raises(ConfigError, match="call distiller\\(images, targets, indices\\)"):
        make({"crd": {"negatives": 8}})(images, targets)
    with pytest.raises(ConfigError, match=r"Distiller\(\.\.\., labels=train_labels\)"):
        make("crd", labels=None)
    student, _ = networks()
    with pytest.raises(ConfigError, match="share parameters"):
        kdrun.Distiller(student, student, example=images)
    with pytest.raises(ConfigError, match="The student has no tap 'nowhere'"):
        make({"sp": {"taps": ["nowhere"]}})


def test_mixed_images_have_two_labels() -> None:
    images, targets, _ = batch()
    share = torch.tensor([0.0, 0.3, 1.0, 0.6])
    distiller = make()
    first, other = (distiller(images, y).parts["ce"] for y in (targets, targets.flip(0)))
    half = torch.full((4,), 0.5)
    found = distiller(images, targets, mixture=(targets.flip(0), half)).parts["ce"]
    torch.testing.assert_close(found, (first + other) / 2)
    with pytest.raises(ShapeError, match=r"mixture must be \(labels, shares\)"):
        distiller(images, targets, mixture=(share, share))
    with pytest.raises(ConfigError, match=r"loss=crd .* mixed image"):
        make({"crd": {"negatives": 8}})(images, targets, targets, mixture=(targets, share))


def test_the_random_state_of_the_caller_is_left_alone() -> None:
    before = torch.get_rng_state()
    student, teacher = networks()
    torch.set_rng_state(before)
    kdrun.Distiller(student, teacher, "fitnet", example=batch()[0])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v2"])
def test_taps_are_found_in_torchvision_networks(architecture: str) -> None:
    student = torchvision_network(architecture, 5, 3, (32, 32))
    _, teacher = networks()
    distiller = kdrun.Distiller(student, teacher, "reviewkd", example=batch()[0])
    assert "ReviewKD(stage" in distiller.describe()
    distiller(*batch()).loss.backward()


def test_named_taps_and_moving() -> None:
    distiller = make(
        {"sp": {"taps": [["middle", "stage2"]]}},
        student_taps={"middle": "blocks.1"},
    )
    assert distiller.describe() == "1*CE + 3000*SP(middle)"
    distiller.double()
    assert next(distiller.scheme.frozen_teachers[0].parameters()).dtype == torch.float64
    images, targets, _ = batch()
    assert distiller(images.double(), targets).loss.dtype == torch.float64


def test_labels_of_other_integer_types_are_the_same_labels() -> None:
    torch.manual_seed(0)
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    images, labels = torch.randn(6, 4), torch.arange(6) % 3
    distiller = kdrun.Distiller(student, teacher, loss="kd", example=images)
    wanted = distiller(images, labels).loss
    assert torch.equal(distiller(images, labels.int()).loss, wanted)
    assert torch.equal(distiller(images, labels.to(torch.uint8)).loss, wanted)


def test_networks_in_double_precision_are_refused() -> None:
    images = torch.randn(2, 4)
    with pytest.raises(ConfigError, match=r"network\.float\(\)"):
        kdrun.Distiller(nn.Linear(4, 3).double(), nn.Linear(4, 3), loss="kd", example=images)


def test_without_targets_the_message_speaks_of_the_call() -> None:
    images = torch.randn(2, 4)
    distiller = kdrun.Distiller(nn.Linear(4, 3), nn.Linear(4, 3), loss="kd", example=images)
    with pytest.raises(ConfigError, match=r"distiller\(images\) has no targets"):
        distiller(images)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_network_that_changes_the_images_is_refused(role: str) -> None:
    changing = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3))
    networks = {"student": nn.Linear(4, 3), "teacher": nn.Linear(4, 3), role: changing}
    images = torch.randn(2, 4)
    kept = images.clone()
    with pytest.raises(ConfigError, match=f"The {role} cannot be used: it changes its input"):
        kdrun.Distiller(**networks, loss="kd", example=images)
    assert torch.equal(images, kept)


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_network_that_returns_probabilities_is_refused(role: str) -> None:
    ending = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    networks = {"student": nn.Linear(4, 3), "teacher": nn.Linear(4, 3), role: ending}
    with pytest.raises(ConfigError, match=f"The {role} cannot be used: it returns probabilities"):
        kdrun.Distiller(**networks, loss="kd", example=torch.randn(2, 4))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"alpha": -1.0}, r"alpha=-1 must lie in \[0, 1\]"),
        ({"alpha": math.nan}, "alpha=nan must lie"),
        ({"alpha": "0.9"}, "alpha='0.9' is not a number"),
        ({"ce": -1.0}, "ce=-1 must be at least 0"),
        ({"ce": math.inf}, "ce=inf must be a finite number"),
        ({"loss": {"kd": {"weight": -3}}}, r"loss\.kd\.weight=-3 must be at least 0"),
        ({"loss": {"kd": {"warmup_epochs": -3}}}, "warmup_epochs=-3 must be at least 0"),
        ({"teacher_weights": [0]}, r"teacher\.weights=\[0\.0\]: each item must be above 0"),
        ({"batch_size": -3}, "batch_size=-3 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make(**settings)


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (torch.tensor([0, 1, 2, -100]), "from 0 to 4, and are from -100 to 2"),
        (torch.tensor([0, 1, 2, 5]), "from 0 to 4, and are from 0 to 5"),
        (torch.tensor([True, False, True, False]), "of type bool"),
        ([0, 1, 2, 3], "targets are a list"),
    ],
)
def test_targets_that_are_no_classes_are_refused(targets: Any, said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        make()(batch()[0], targets)
