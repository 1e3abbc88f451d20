"""Frozen teachers: their own precision, folded, with the taps they had."""

import pytest
import torch

from kdrun.config.schema import TeacherRuntimeConfig
from kdrun.models.features.taps import FeatureExtractor
from kdrun.models.resnet import ResNet
from kdrun.teachers.frozen import FrozenTeacher, make_frozen


def teacher(names: tuple[str, ...] = ()) -> FeatureExtractor:
    torch.manual_seed(0)
    network = ResNet(10, depth=8, widths=[8, 8, 16, 16])
    for _ in range(3):
        network(torch.randn(32, 3, 16, 16))
    return FeatureExtractor(network.requires_grad_(False).eval(), names, embedding=True)


def images() -> torch.Tensor:
    return torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


SAMPLE = torch.zeros(2, 3, 16, 16)


def test_the_defaults_change_nothing() -> None:
    plain = teacher()
    found, folded = make_frozen(plain, TeacherRuntimeConfig(), "fp32", SAMPLE)
    assert found is plain
    assert folded == 0


def test_folding_leaves_the_teacher_and_its_taps() -> None:
    plain = teacher(("layer1.0.bn1", "stage2", "layer2.0.conv1"))
    before = {name: tensor.clone() for name, tensor in plain.network.state_dict().items()}
    found, folded = make_frozen(plain, TeacherRuntimeConfig(fold=True), "fp32", SAMPLE)
    assert folded == 8  # the tapped convolution keeps its normalisation
    expected, got = plain(images()), found(images())
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.embedding, expected.embedding, rtol=1e-5, atol=1e-5)
    assert set(got.features) == set(expected.features)
    for name, tensor in expected.features.items():
        torch.testing.assert_close(got.features[name], tensor, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(before[n], t) for n, t in plain.network.state_dict().items())


def test_bf16_is_what_autocast_computes() -> None:
    plain = teacher()
    with torch.autocast("cpu", torch.bfloat16):
        expected = plain(images())
    for own, loop in (("bf16", "fp32"), (None, "bf16")):
        found, _ = make_frozen(plain, TeacherRuntimeConfig(precision=own), loop, SAMPLE)
        assert torch.equal(found(images()).logits, expected.logits)
    assert plain.network.conv1.weight.dtype == torch.float32  # type: ignore[union-attr]


def test_fp32_beside_a_half_precision_student() -> None:
    plain = teacher()
    found, _ = make_frozen(plain, TeacherRuntimeConfig(precision="fp32"), "bf16", SAMPLE)
    assert isinstance(found, FrozenTeacher)
    with torch.autocast("cpu", torch.bfloat16):
        got = found(images()).logits
    assert torch.equal(got, plain(images()).logits)


@pytest.mark.parametrize("settings", [{"fold": True}, {"precision": "bf16"}])
def test_the_answers_stay_close(settings: dict[str, object]) -> None:
    plain = teacher()
    found, _ = make_frozen(plain, TeacherRuntimeConfig(**settings), "fp32", SAMPLE)  # type: ignore[arg-type]
    expected, got = plain(images()).logits, found(images()).logits.float()
    span = (expected.max() - expected.min()).item()
    assert (got - expected).abs().max().item() < (
        0.02 if settings.get("precision") else 1e-5
    ) * span
