"""Be your own teacher: its value and gradient, exits of every shape, what it refuses."""

import pytest
import torch
from schemes.making import FITNET, KD, batch, convnet, given, mlp
from torch.nn import functional as F

from kdrun.config.schema import LossConfig, NetworkConfig
from kdrun.errors import ConfigError
from kdrun.schemes.byot import BeYourOwnTeacher, byot
from kdrun.schemes.context import SchemeContext

DOUBLE = torch.float64
WIDE = convnet(3, 4, 6)
ALPHA = LossConfig("kd", "kdrun.losses.kd.SoftTargets", 0.3, {"temperature": 3.0})


def test_value_and_gradient_are_those_of_the_paper() -> None:
    scheme = byot(given(ALPHA, student=WIDE, dtype=DOUBLE, ce=None), hint_weight=0.05)
    example = batch(dtype=DOUBLE)
    network = scheme.network
    hidden, maps = example.images, []
    for number, stage in enumerate(network.stages):
        hidden = stage(network.pool(hidden) if number else hidden)
        maps.append(hidden)
    deep = maps[-1].mean((2, 3))
    last = network.fc(deep)
    expected = F.cross_entropy(last, example.targets)
    p = F.softmax(last.detach() / 3, 1)
    for leave, tensor in zip(scheme.exits, maps, strict=False):
        features = leave.body(tensor).mean((2, 3))
        logits = F.linear(features, leave.classifier.weight, leave.classifier.bias)
        kl = (p * (p.log() - F.log_softmax(logits / 3, 1))).sum(1).mean()
        expected = expected + 0.7 * F.cross_entropy(logits, example.targets) + 0.3 * 9 * kl
        expected = expected + 0.05 * ((features - deep.detach()) ** 2).sum() / len(example)
    parameters = list(scheme.parameters())
    gradients = torch.autograd.grad(expected, parameters)
    found = scheme(example)
    torch.testing.assert_close(found.loss, expected)
    found.loss.backward()
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    torch.testing.assert_close(sum(found.groups.values()), found.loss)
    assert {"ce", "exit1_ce", "exit2_kd_weighted", "exit2_hint"} <= set(found.parts)


def test_the_last_classifier_is_not_taught_by_the_exits() -> None:
    """Its own layers, after the last exit, move as with labels alone."""
    scheme = byot(given(ALPHA, student=WIDE, dtype=DOUBLE, ce=None))
    scheme(batch(dtype=DOUBLE)).loss.backward()
    alone = given(ALPHA, student=WIDE, dtype=DOUBLE).student.network
    F.cross_entropy(alone(batch(dtype=DOUBLE).images), batch().targets).backward()
    for name in ("stages.2.conv.weight", "fc.weight", "fc.bias"):
        torch.testing.assert_close(
            scheme.network.get_parameter(name).grad, alone.get_parameter(name).grad
        )
    first = "stages.0.conv.weight"
    assert not torch.allclose(
        scheme.network.get_parameter(first).grad, alone.get_parameter(first).grad
    )


def test_the_state_goes_on() -> None:
    def made() -> BeYourOwnTeacher:
        return byot(given(ALPHA, student=WIDE, ce=None))

    first, second = made(), made()
    optimiser = torch.optim.SGD(first.parameters(), lr=0.1)
    first(batch()).loss.backward()
    optimiser.step()
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second(batch()).loss, first(batch()).loss, rtol=0, atol=0)


RESNET = NetworkConfig("resnet", "kdrun.models.resnet.ResNet", {"depth": 8, "widths": [4, 4, 6, 8]})


@pytest.mark.parametrize("student", [WIDE, RESNET, mlp(7, 6)], ids=lambda c: c.name)
def test_exits_fit_maps_and_vectors(student: NetworkConfig) -> None:
    scheme = byot(given(ALPHA, student=student, ce=None))
    output, found = scheme.answers(batch().images)
    assert output.embedding is not None
    assert len(found) == len(scheme.taps)
    assert all(features.shape == output.embedding.shape for features, _ in found)
    assert all(logits.shape == (6, 5) for _, logits in found)
    assert torch.isfinite(scheme(batch()).loss)


def test_the_exits_can_be_chosen() -> None:
    scheme = byot(given(ALPHA, student=WIDE, ce=None), exits=["stage2", "stages.0.conv"])
    assert scheme.taps == ("stage2", "stages.0.conv")
    found = scheme.companions()
    assert [c.name for c in found] == [
        "exit at stage2", "exit at stages.0.conv", "ensemble of 3 classifiers",
    ]  # fmt: skip
    scheme.eval()
    output, exits = scheme.answers(batch().images)
    answers = torch.stack([F.softmax(z, 1) for z in (output.logits, *(z for _, z in exits))])
    torch.testing.assert_close(found[2].module.eval()(batch().images).exp(), answers.mean(0))
    torch.testing.assert_close(found[0].module.eval()(batch().images), exits[0][1])


def refused(what: SchemeContext, **settings: object) -> str:
    with pytest.raises(ConfigError) as found:
        byot(what, **settings)  # type: ignore[arg-type]
    return str(found.value)


def test_what_makes_no_sense_is_refused() -> None:
    assert "a single stage" in refused(given(KD, student=convnet(4)))
    assert "no tap 'stage9'" in refused(given(KD), exits=["stage9"])
    assert "has no exit to train" in refused(given(KD), exits=[])
    assert "not be negative" in refused(given(KD), hint_weight=-1.0)
    assert "reads more than logits" in refused(given(KD, FITNET))
    ce = LossConfig("ce", "kdrun.losses.ce.CrossEntropy", 1.0)
    assert "has no distillation loss" in refused(given(ce))
