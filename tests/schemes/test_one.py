"""On-the-fly native ensemble: its value and gradient, its branches, what it refuses."""

import pytest
import torch
from schemes.making import FITNET, KD, batch, convnet, given, mlp
from torch import Tensor
from torch.nn import functional as F

from kdrun.config.schema import LossConfig
from kdrun.errors import ConfigError
from kdrun.schemes.context import SchemeContext
from kdrun.schemes.one import NativeEnsemble, one

DOUBLE = torch.float64
WIDE = convnet(3, 4, 6)


def by_hand(scheme: NativeEnsemble, images: Tensor, targets: Tensor, T: float) -> Tensor:
    """The loss from the layers themselves; only for ConvNet with three stages."""
    network = scheme.network
    pool, (first, second, last) = network.pool, network.stages
    shared = second(pool(first(images)))
    heads = [(last, network.fc)]
    heads += [(b.network.stages[2], b.network.fc) for b in scheme.branches]
    logits = [fc(stage(pool(shared)).mean((2, 3))) for stage, fc in heads]
    scores = scheme.gate.linear(shared.mean((2, 3)))
    centred = (scores - scores.mean(0)) / (scores.var(0, unbiased=False) + 1e-5).sqrt()
    g = F.softmax(F.relu(centred * scheme.gate.norm.weight + scheme.gate.norm.bias), 1)
    ensemble = sum(g[:, i : i + 1] * z for i, z in enumerate(logits))
    assert isinstance(ensemble, Tensor)
    loss = F.cross_entropy(ensemble, targets)
    p = F.softmax(ensemble.detach() / T, 1)
    for z in logits:
        loss = loss + F.cross_entropy(z, targets)
        loss = loss + T**2 * (p * (p.log() - F.log_softmax(z / T, 1))).sum(1).mean()
    return loss


@pytest.mark.parametrize("branches", [2, 3])
def test_value_and_gradient_are_those_of_the_paper(branches: int) -> None:
    scheme = one(given(KD, student=WIDE, dtype=DOUBLE), branches=branches)
    example = batch(dtype=DOUBLE)
    expected = by_hand(scheme, example.images, example.targets, 2.0)
    parameters = list(scheme.parameters())
    gradients = torch.autograd.grad(expected, parameters)
    found = scheme(example)
    torch.testing.assert_close(found.loss, expected)
    found.loss.backward()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    torch.testing.assert_close(sum(found.groups.values()), found.loss)
    assert {"branch1_ce", f"branch{branches}_kd_weighted", "ensemble_ce"} <= set(found.parts)


def test_branches_begin_differently_and_the_first_as_the_student_alone() -> None:
    what = given(KD, student=WIDE)
    alone = {name: tensor.clone() for name, tensor in what.student.network.state_dict().items()}
    scheme = one(what)
    assert all(torch.equal(alone[name], t) for name, t in scheme.network.state_dict().items())
    heads = [scheme.network.fc.weight, *(b.network.fc.weight for b in scheme.branches)]
    assert not any(torch.equal(heads[i], heads[j]) for i, j in ((0, 1), (1, 2), (0, 2)))


def test_the_state_goes_on() -> None:
    def made() -> NativeEnsemble:
        return one(given(KD, student=WIDE))

    first, second = made(), made()
    optimiser = torch.optim.SGD(first.parameters(), lr=0.1)
    first(batch()).loss.backward()
    optimiser.step()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(batch()).loss, first(batch()).loss, rtol=0, atol=0)


def test_what_is_measured_beside_the_student() -> None:
    scheme = one(given(KD, student=WIDE))
    found = scheme.companions()
    assert [(c.kind, c.learner) for c in found] == [
        ("branches", None), ("branches", None), ("ensemble", None),
    ]  # fmt: skip
    scheme.eval()
    logits, ensemble = scheme.answers(batch().images)
    torch.testing.assert_close(scheme.measured(batch().images).logits, logits[0])
    measured = [c.module.eval()(batch().images) for c in found]
    for one_found, expected in zip(measured, [*logits[1:], ensemble], strict=True):
        torch.testing.assert_close(one_found, expected)


def test_any_tap_can_be_where_branches_begin() -> None:
    early = one(given(KD, student=WIDE), split="stage1")
    late = one(given(KD, student=WIDE), split="stages.1.bn")
    count = [sum(p.numel() for p in s.branches.parameters()) for s in (early, late)]
    assert count[0] > count[1]
    assert torch.isfinite(early(batch()).loss)
    assert torch.isfinite(one(given(KD, student=mlp(7, 6)))(batch()).loss)
    assert torch.isfinite(one(given(KD, student=WIDE))(batch(1)).loss)


def refused(what: SchemeContext, **settings: object) -> str:
    with pytest.raises(ConfigError) as found:
        one(what, **settings)  # type: ignore[arg-type]
    return str(found.value)


def test_what_makes_no_sense_is_refused() -> None:
    assert "at least 2" in refused(given(KD), branches=1)
    assert "a single stage" in refused(given(KD, student=convnet(4)))
    assert "no tap 'stage9'" in refused(given(KD), split="stage9")
    assert "reads more than logits" in refused(given(KD, FITNET))
    assert "compile=false" in refused(given(KD, compiled=True))
    ce = LossConfig("ce", "kdrun.losses.ce.CrossEntropy", 1.0)
    assert "has no distillation loss" in refused(given(ce))
