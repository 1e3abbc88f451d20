"""Teacher-free and class-wise self-distillation: value, gradient and what they refuse."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from schemes.making import FITNET, KD, batch, convnet, given, learner, objective
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.context import SchemeContext
from kdrun.schemes.cs_kd import class_wise
from kdrun.schemes.offline import Offline
from kdrun.schemes.tf_kd import teacher_free, virtual_logits
from kdrun.types import Batch, Mixture

DOUBLE = torch.float64


def tf_kd(what: SchemeContext, **settings: Any) -> StudentScheme:
    teachers = [learner(convnet(4, 8), 7).extractor()] if settings.get("variant") else []
    return teacher_free(
        what, what.student.extractor(), teachers, what.objective, what.compiled, **settings
    )


@pytest.mark.parametrize(("correct", "a"), [(None, 0.99), (0.9, 0.9)])
def test_the_virtual_teacher_is_that_of_the_paper(correct: float | None, a: float) -> None:
    scheme = tf_kd(given(KD, dtype=DOUBLE, alpha=0.4, T=20.0, ce=None), correct=correct)
    found = scheme(batch(dtype=DOUBLE))
    z = found.logits.detach().numpy()
    p = np.full(z.shape, (1 - a) / 4)
    p[np.arange(6), batch().targets.numpy()] = a
    soft = p ** (1 / 20)
    soft /= soft.sum(axis=1, keepdims=True)
    powers = np.exp(z / 20)
    q = powers / powers.sum(axis=1, keepdims=True)
    kl = (soft * np.log(soft / q)).sum() / 6
    ce = F.cross_entropy(found.logits, batch().targets).item()
    assert found.loss.item() == pytest.approx(0.6 * ce + 0.4 * 400 * kl, rel=1e-5)


def test_its_gradient_pulls_towards_the_virtual_answer() -> None:
    """d loss / d z = (1-α)(softmax(z) - y)/B + α·T·(q - p)/B, worked out by hand."""
    scheme = tf_kd(given(KD, alpha=0.4, T=20.0, ce=None))
    output = scheme(batch())
    (found,) = torch.autograd.grad(output.loss, output.logits)
    z, y = output.logits.detach(), F.one_hot(batch().targets, 5)
    p = F.softmax(virtual_logits(batch().targets, 5, 0.99) / 20, 1)
    expected = 0.6 * (F.softmax(z, 1) - y) + 0.4 * 20 * (F.softmax(z / 20, 1) - p)
    torch.testing.assert_close(found, expected / 6, rtol=1e-4, atol=1e-6)


def test_virtual_logits_are_probabilities() -> None:
    logits = virtual_logits(torch.tensor([2, 0]), 5, 0.9)
    torch.testing.assert_close(
        logits.exp(), torch.tensor([[0.025, 0.025, 0.9, 0.025, 0.025], [0.9, *[0.025] * 4]])
    )


def test_the_virtual_teacher_of_a_mixed_image_is_the_mean_of_two() -> None:
    scheme, plain = tf_kd(given(KD), correct=0.9), batch()
    share = torch.tensor([0.0, 0.3, 1.0, 0.5, 0.7, 0.2])
    second = plain.targets.flip(0)
    (teacher,) = scheme.forward_networks(replace(plain, mixture=Mixture(second, share)))[1]
    first, other = (virtual_logits(y, 5, 0.9).exp() for y in (plain.targets, second))
    expected = share[:, None] * first + (1 - share[:, None]) * other
    torch.testing.assert_close(teacher.logits.exp(), expected)


def test_self_training_is_the_offline_scheme() -> None:
    scheme = tf_kd(given(KD), variant="self_training")
    assert isinstance(scheme, Offline)
    assert torch.isfinite(scheme(batch()).loss)


def test_only_logits_meet_a_virtual_teacher() -> None:
    for what, settings, said in [
        (given(KD, FITNET), {}, "reads more than logits"),
        (given(KD), {"correct": 0.1}, "must be above 1/5"),
        (given(KD), {"correct": 1.0}, "below 1"),
        (given(KD), {"variant": "self_training", "correct": 0.9}, "leave it out"),
        (given(KD), {"variant": "other"}, "virtual, self_training"),
    ]:
        with pytest.raises(ConfigError, match=said):
            tf_kd(what, **settings)


def paired(dtype: torch.dtype = torch.float32) -> Batch:
    found = batch(dtype=dtype)
    found.partner = found.images.flip(0) + 0.5
    return found


def test_the_partner_teaches_as_in_the_paper() -> None:
    scheme = class_wise(given(KD, dtype=DOUBLE, T=4.0, alpha=0.5))
    twin = learner(convnet(4, 8), 0, DOUBLE).network
    example = paired(DOUBLE)
    own, partner = twin(example.images), twin(example.partner).detach()
    p = F.softmax(partner / 4, 1)
    kl = (p * (p.log() - F.log_softmax(own / 4, 1))).sum(1).mean()
    expected = F.cross_entropy(own, example.targets) + 0.5 * 16 * kl
    expected.backward()
    found = scheme(example)
    torch.testing.assert_close(found.loss, expected)
    found.loss.backward()
    for parameter, other in zip(scheme.network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)


def test_class_pairs_compare_logits_only() -> None:
    with pytest.raises(ConfigError, match="reads more than logits"):
        class_wise(given(FITNET))
    assert class_wise(given(KD)).reads_partner
    assert objective(KD).reads_strong_view is False
