"""Mixed images: what each scheme makes of two labels, and that both networks see one mixture."""

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from schemes.making import KD, batch, convnet, given, learner, objective
from torch import Tensor

from kdrun.config.augment import AugmentConfig, MixConfig
from kdrun.data.images import Split
from kdrun.data.loaders.loaders import TrainLoader
from kdrun.losses.deit_hard import DeitHard
from kdrun.losses.objective import Objective, WeightedLoss
from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.normalise import Renormalise
from kdrun.models.resize import Resize
from kdrun.schemes.base import StudentScheme
from kdrun.schemes.byot import byot
from kdrun.schemes.offline import Offline
from kdrun.schemes.one import one
from kdrun.schemes.online import online
from kdrun.schemes.tf_kd import teacher_free
from kdrun.types import Mixture, Normalisation

WIDE = convnet(3, 4, 6)


def offline(loss: Objective) -> Offline:
    student, teacher = (learner(convnet(4, 8), seed).extractor() for seed in (0, 7))
    return Offline(student, [teacher], loss)


def virtual() -> StudentScheme:
    context = given(KD)
    return teacher_free(context, context.student.extractor(), [], context.objective, False)


SCHEMES: dict[str, Callable[[], StudentScheme]] = {
    "offline": lambda: offline(objective(KD)),
    "online": lambda: online(given(KD, peers=(convnet(6, 8),))),
    "one": lambda: one(given(KD, student=WIDE)),
    "byot": lambda: byot(given(KD, student=WIDE)),
    "tf_kd": virtual,
}


@pytest.mark.parametrize("name", SCHEMES)
def test_a_whole_share_is_the_plain_label(name: str) -> None:
    scheme, plain = SCHEMES[name](), batch()
    second = plain.targets.flip(0)
    share = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0, 1.0])
    targets = torch.where(share.bool(), plain.targets, second)
    expected = scheme(replace(plain, targets=targets))
    found = scheme(replace(plain, mixture=Mixture(second, share)))
    torch.testing.assert_close(found.loss, expected.loss)
    assert not torch.isclose(found.loss, scheme(plain).loss)
    half = scheme(replace(plain, mixture=Mixture(second, torch.full((6,), 0.5))))
    if name != "tf_kd":  # linear in the labels; the virtual teacher is not
        mean = (scheme(plain).loss + scheme(replace(plain, targets=second)).loss) / 2
        torch.testing.assert_close(half.loss, mean)


def test_hard_distillation_takes_the_teachers_class_of_the_mixed_image() -> None:
    scheme = offline(objective(KD))
    plain = batch()
    mixed = replace(plain, images=0.5 * plain.images + 0.5 * plain.images.flip(0))
    mixed.mixture = Mixture(plain.targets.flip(0), torch.full((6,), 0.5))
    student, (teacher,) = scheme.forward_networks(mixed)
    decision = scheme._teachers[0].network(mixed.images).argmax(1)
    expected = torch.nn.functional.cross_entropy(student.logits, decision)
    torch.testing.assert_close(DeitHard()(student, teacher, mixed), expected)


def digest(images: Tensor) -> str:
    return hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize("augment", [
    AugmentConfig(1, True, mixup=MixConfig(0.8)), AugmentConfig(1, True, cutmix=MixConfig(1.0))
])  # fmt: skip
def test_both_networks_see_the_same_mixture_in_their_own_form(augment: AugmentConfig) -> None:
    pixels = torch.randint(256, (12, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    data, theirs = Normalisation((0.4,), (0.3,)), Normalisation((0.1,), (0.7,))
    loader = TrainLoader(
        Split(pixels.to(torch.uint8), torch.arange(12) % 5), data, 6, augment, 0, "cpu"
    )
    networks = [learner(convnet(4, 8), seed) for seed in (0, 7)]
    seen: dict[int, list[Tensor]] = {0: [], 1: []}
    for number, each in enumerate(networks):
        each.network.register_forward_pre_hook(
            lambda _, inputs, number=number: seen[number].append(inputs[0].clone())
        )
    student = FeatureExtractor(networks[0].network, (), networks[0].paths, False, (data, data))
    teacher = FeatureExtractor(
        networks[1].network, (), networks[1].paths, False, (data, theirs), (16, 16)
    )
    weighted = WeightedLoss(DeitHard(), 1.0)
    scheme = Offline(student, [teacher], Objective(objective().ce, 1.0, {"deit_hard": weighted}))
    shares = []
    for mixed in loader.epoch(0):
        scheme(mixed)
        converted = Resize((16, 16))(Renormalise(data, theirs)(mixed.images))
        assert digest(seen[0][-1]) == digest(mixed.images)
        assert digest(seen[1][-1]) == digest(converted)
        assert mixed.mixture is not None
        shares.append(mixed.mixture.share)
        if augment.cutmix.alpha:  # the share holds at the teacher's size as well
            assert torch.equal((shares[-1] * 64).round(), shares[-1] * 64)
    assert len(set(torch.cat(shares).tolist())) > 6
