"""Deep mutual learning: its value and gradient, who learns from whom, what it refuses."""

import copy

import numpy as np
import pytest
import torch
from schemes.making import FITNET, KD, SP, batch, convnet, given, mlp
from torch import Tensor
from torch.nn import functional as F

from kdrun.config.schema import LossConfig
from kdrun.errors import ConfigError
from kdrun.schemes.context import SchemeContext
from kdrun.schemes.measured import mean_logits
from kdrun.schemes.online import Online, online

DOUBLE = torch.float64


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return found


def by_hand(logits: list[Tensor], targets: Tensor, temperature: float) -> float:
    """The sum of all peers' losses, from the paper's formulas, in numpy."""
    answers = [one.detach().numpy() for one in logits]
    total = 0.0
    for i, own in enumerate(answers):
        rows = np.arange(len(own))
        total += -np.log(softmax(own)[rows, targets.numpy()]).mean()
        q = softmax(own / temperature)
        others = [softmax(z / temperature) for j, z in enumerate(answers) if j != i]
        for p in others:
            divergence = (p * np.log(p / q)).sum() / len(p)
            total += temperature**2 * divergence / len(others)
    return total


@pytest.mark.parametrize("count", [2, 3])
def test_the_loss_is_that_of_the_paper(count: int) -> None:
    peers = (convnet(6, 8), mlp(7))[: count - 1]
    scheme = online(given(KD, peers=peers, dtype=DOUBLE))
    found = scheme(batch(dtype=DOUBLE))
    logits = [output.logits for output in scheme._forward_all(batch(dtype=DOUBLE))]
    assert found.loss.item() == pytest.approx(by_hand(logits, batch().targets, 2.0), rel=1e-9)


def test_the_mean_of_the_others_is_one_teacher() -> None:
    peers = (convnet(6, 8), mlp(7))
    scheme = online(given(KD, peers=peers, dtype=DOUBLE), variant="mean")
    found = scheme(batch(dtype=DOUBLE))
    logits = [output.logits for output in scheme._forward_all(batch(dtype=DOUBLE))]
    expected = 0.0
    for i, own in enumerate(logits):
        others = [F.softmax(z / 2, 1) for j, z in enumerate(logits) if j != i]
        mean = torch.stack(others).mean(0)
        kl = (mean * (mean.log() - F.log_softmax(own / 2, 1))).sum(1).mean()
        expected += (F.cross_entropy(own, batch().targets) + 4 * kl).item()
    assert found.loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_mean_of_answers() -> None:
    logits = [torch.randn(4, 5, dtype=DOUBLE) for _ in range(3)]
    mean = torch.stack([F.softmax(z / 3, 1) for z in logits]).mean(0)
    torch.testing.assert_close(F.softmax(mean_logits(logits, 3.0) / 3, 1), mean)


def test_each_peer_moves_as_if_the_others_were_frozen() -> None:
    """The gradient of each peer is that of its own loss alone, with the others as constants."""
    scheme = online(given(KD, peers=(convnet(6, 8),), dtype=DOUBLE))
    networks = [scheme.student.network, scheme.others[0].network]
    frozen = [copy.deepcopy(network) for network in networks]
    scheme(batch(dtype=DOUBLE)).loss.backward()
    logits = [network(batch(dtype=DOUBLE).images) for network in frozen]
    for own, (i, j) in zip(frozen, ((0, 1), (1, 0)), strict=True):
        target = F.softmax(logits[j].detach() / 2, 1)
        kl = -(target * F.log_softmax(logits[i] / 2, 1)).sum(1).mean()
        loss = F.cross_entropy(logits[i], batch().targets) + 4 * kl
        found = torch.autograd.grad(loss, list(own.parameters()), retain_graph=True)
        for parameter, gradient in zip(networks[i].parameters(), found, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient)


def test_every_pair_has_adapters_of_its_own() -> None:
    scheme = online(given(KD, FITNET, SP, peers=(convnet(6, 8), convnet(3, 5))))
    shapes = [
        next(iter(peer_loss.objective.terms["fitnet"].parameters())).shape
        for peer_loss in scheme.peer_losses
    ]
    assert [tuple(shape[:2]) for shape in shapes] == [
        (6, 4), (3, 4), (4, 6), (3, 6), (4, 3), (6, 3),
    ]  # fmt: skip
    found = scheme(batch())
    found.loss.backward()
    assert all(p.grad is not None for p in scheme.parameters())
    torch.testing.assert_close(sum(found.groups.values()), found.loss)
    weighted = [v for name, v in found.parts.items() if name.endswith("_weighted")]
    torch.testing.assert_close(torch.stack(weighted).sum(), found.loss.detach())
    assert {"peer1_ce", "peer2_fitnet", "peer3_sp_weighted"} <= set(found.parts)


def test_nothing_is_registered_twice_and_the_state_goes_on() -> None:
    def made() -> Online:
        return online(given(KD, FITNET, peers=(convnet(6, 8), mlp(7))[:1]))

    one, two = made(), made()
    names = list(one.state_dict())
    pointers = [tensor.data_ptr() for tensor in one.state_dict().values() if tensor.numel()]
    assert len(pointers) == len(set(pointers))
    optimiser = torch.optim.SGD(one.parameters(), lr=0.1)
    one(batch()).loss.backward()
    optimiser.step()
    two.load_state_dict(one.state_dict())
    assert list(two.state_dict()) == names
    torch.testing.assert_close(two(batch()).loss, one(batch()).loss, rtol=0, atol=0)


def test_the_student_keeps_its_own_names() -> None:
    scheme = online(given(KD, SP, peers=(convnet(6, 8),)))
    plain = given().student.network
    assert list(scheme.network.state_dict()) == list(plain.state_dict())
    (peer, ensemble) = scheme.companions()
    assert (peer.kind, peer.name, ensemble.kind) == ("peers", "peer 2", "ensemble")
    assert peer.learner is not None
    assert peer.learner.network is scheme.others[0].network
    ensemble.module.eval()
    images = batch().images
    answers = [F.softmax(one(images).logits, 1) for one in (scheme.student, scheme.others[0])]
    torch.testing.assert_close(ensemble.module(images).exp(), torch.stack(answers).mean(0))


def test_a_strong_view_reaches_every_peer() -> None:
    mlkd = LossConfig("mlkd", "kdrun.losses.mlkd.MultiLevelLogits", 1.0, {})
    scheme = online(given(mlkd, peers=(mlp(7),)))
    assert torch.isfinite(scheme(batch()).loss)


def refused(what: SchemeContext, variant: str = "each") -> str:
    with pytest.raises(ConfigError) as found:
        online(what, variant)
    return str(found.value)


def test_what_makes_no_sense_is_refused() -> None:
    peers = (convnet(6, 8),)
    assert "needs peers" in refused(given(KD))
    assert "each, mean" in refused(given(KD, peers=peers), "both")
    assert "scheme.variant=each" in refused(given(KD, SP, peers=peers), "mean")
    ce = LossConfig("ce", "kdrun.losses.ce.CrossEntropy", 1.0)
    assert "has no distillation loss" in refused(given(ce, peers=peers))
    ab = LossConfig("ab", "kdrun.losses.ab.ActivationBoundaries", 1.0, {})
    assert "needs a trained teacher" in refused(given(ab, peers=peers))
    simkd = LossConfig("simkd", "kdrun.losses.simkd.ReusedTeacherClassifier", 1.0, {})
    assert "needs a trained teacher" in refused(given(simkd, peers=peers))
    srrl = LossConfig("srrl", "kdrun.losses.srrl.SoftmaxRegression", 1.0, {})
    assert "still in training" in refused(given(srrl, peers=peers))


def test_one_step_serves_both_peers_from_the_same_forward() -> None:
    """Equal peers that start alike stay alike: no one is served before the other."""
    what = given(KD, peers=(convnet(4, 8),))
    what.peers[0].network.load_state_dict(what.student.network.state_dict())
    scheme = online(what)
    optimiser = torch.optim.SGD(scheme.parameters(), lr=0.5)
    for _ in range(3):
        scheme(batch()).loss.backward()
        optimiser.step()
    pairs = zip(scheme.network.parameters(), scheme.others[0].network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
