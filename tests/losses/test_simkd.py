"""The reused teacher classifier: the loss, and the network it leaves."""

import pytest
import torch
from losses.cases import PAIRS, Case, made_up_data, make_case, make_objective
from losses.map_cases import assert_same, exact_case, match_by_hand, total
from torch import Tensor, nn

from kdrun.distillation.connect import final_student
from kdrun.distillation.networks import Member, new_network
from kdrun.errors import ConfigError
from kdrun.losses.simkd import ReusedTeacherClassifier


def by_hand(case: Case) -> Tensor:
    if case.term.pairs:
        ((s_name, t_name),) = case.term.pairs
        s, t = match_by_hand(case.student.features[s_name], case.teacher.features[t_name])
    else:
        s, t = case.student.embedding, case.teacher.embedding
    errors = [(a - b) ** 2 for a, b in zip(s.flatten(), t.flatten(), strict=True)]
    return total(errors) / len(errors)


@pytest.mark.parametrize("pair", ["cnn", "mobilenet", "mlp"])
def test_agrees_with_loops(pair: str) -> None:
    case = exact_case("simkd", pair)
    assert_same(case, lambda: by_hand(case))


def test_units_are_compared_where_the_teacher_has_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAIRS, "from_mlp", PAIRS["mlp"].__class__(*[PAIRS["mlp"].student] * 2))
    case = exact_case("simkd", "from_mlp")
    assert not case.term.pairs
    assert_same(case, lambda: by_hand(case))


def test_equal_features_cost_nothing() -> None:
    case = make_case("simkd", "same")
    ((s_name, t_name),) = case.term.pairs
    case.teacher.features[t_name] = case.student.features[s_name].detach().clone()
    assert case.loss() == 0


def kept(pair: str) -> tuple[Member, Member, Member]:
    """(plain student, teacher, kept student) in evaluation mode."""
    found = PAIRS[pair]
    dataset = made_up_data(found.channels, found.size, 5)
    plain, again, teacher = (
        Member(new_network(config, dataset, seed, "student"), config, dataset.normalisation)
        for config, seed in ((found.student, 0), (found.student, 0), (found.teacher, 1))
    )
    student = final_student(make_objective("simkd"), again, [teacher], dataset, 0)
    for member in (plain, teacher, student):
        member.network.eval()
    return plain, teacher, student


@pytest.mark.parametrize(
    ("pair", "feature", "size"),
    [("cnn", "stages.1", 2), ("same", "stages.1", 4), ("mobilenet", "conv2", 2), ("mlp", None, 1)],
)
def test_the_kept_network_is_backbone_projector_and_the_teachers_classifier(
    pair: str, feature: str | None, size: int
) -> None:
    plain, teacher, student = kept(pair)
    images = torch.randn(3, PAIRS[pair].channels, PAIRS[pair].size, PAIRS[pair].size)
    seen: list[Tensor] = []
    if feature is None:
        classifier = plain.network.fc
        classifier.register_forward_pre_hook(lambda m, args: seen.append(args[0][:, :, None, None]))
    else:
        module = plain.network.get_submodule(feature)
        module.register_forward_hook(lambda m, args, output: seen.append(output))
    plain.network(images)
    small = nn.functional.adaptive_avg_pool2d(seen[0], size)
    projected = student.network.projector(small)
    owner = teacher.network.fc
    expected = projected.mean((2, 3)) @ owner.weight.T + owner.bias
    torch.testing.assert_close(student.network(images), expected)
    names = dict(student.network.named_parameters())
    assert [name for name, p in names.items() if not p.requires_grad] == [
        "classifier.weight",
        "classifier.bias",
    ]
    outputs = [p.shape[0] for name, p in names.items() if name.startswith("backbone")]
    assert outputs[-1] != 5, "the student's own classifier is gone"


def test_the_initial_backbone_is_the_plain_students() -> None:
    plain, _, student = kept("cnn")
    own = student.network.backbone.state_dict()
    for name, tensor in plain.network.state_dict().items():
        if not name.startswith("fc"):
            assert torch.equal(own[name], tensor), name


def test_training_leaves_the_classifier_alone() -> None:
    _, teacher, student = kept("cnn")
    student.network.train()(torch.randn(4, 1, 8, 8)).sum().backward()
    assert student.network.classifier.weight.grad is None
    assert teacher.network.fc.weight.grad is None
    assert all(p.grad is not None for p in student.network.projector.parameters())


def test_golden() -> None:
    for pair, expected in GOLDEN.items():
        assert make_case("simkd", pair).loss().item() == pytest.approx(expected, rel=1e-5)


GOLDEN = {"cnn": 2.0787899, "mobilenet": 1.1476533}


def test_ce_weighs_nothing_unless_it_is_asked_for() -> None:
    assert make_objective("simkd").describe() == "1*SimKD"
    assert make_objective("simkd", "sp").describe().startswith("1*SimKD + ")


def test_refusals() -> None:
    with pytest.raises(ConfigError, match="reduction=0 must be at least 1"):
        ReusedTeacherClassifier(reduction=0)
