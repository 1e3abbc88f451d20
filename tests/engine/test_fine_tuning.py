"""Learning rates per layer, weight decay per parameter, and frozen parts."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine.test_loop import SCHEDULE, Plain, Watcher, same_weights, training
from torch import Tensor, nn

from kdrun.config import rules
from kdrun.config.schema import ScheduleConfig
from kdrun.distillation.fine_tuning import classifier_for
from kdrun.engine.loop import fit
from kdrun.engine.optim import build_optimizer, set_learning_rate
from kdrun.engine.parameter_groups import learning_rate_scales, parameter_layers, split_groups
from kdrun.errors import ConfigError, Interrupted
from kdrun.models.resnet import ResNet
from kdrun.models.vit import VisionTransformer
from kdrun.types import Batch, StepOutput
from kdrun.vision import import_torchvision
from kdrun.weights.load import classifier_parameters

HEAD = ("4.weight", "4.bias")  # of `Plain`


def vit(tokens: int = 0) -> VisionTransformer:
    return VisionTransformer(
        10, 3, (8, 8), patch_size=4, width=12, depth=3, attention_heads=3,
        distillation_tokens=tokens,
    )  # fmt: skip


def test_layers_of_a_vision_transformer() -> None:
    network = vit(tokens=1)
    classifier = classifier_parameters(network, 10)
    assert classifier == ("head.weight", "head.bias", "head_dist.weight", "head_dist.bias")
    layers = parameter_layers(network, classifier)
    for name in ("cls_token", "dist_token", "pos_embed", "patch_embed.proj.weight"):
        assert layers[name] == 0
    assert layers["blocks.0.attn.qkv.weight"] == 1
    assert layers["blocks.2.mlp.fc2.bias"] == layers["norm.weight"] == 3
    assert {layers[name] for name in classifier} == {4}
    assert set(layers) == {name for name, _ in network.named_parameters()}


def test_layers_of_a_residual_network_are_its_blocks() -> None:
    network = ResNet(10, 3, depth=14, widths=[4, 4, 8, 8])
    layers = parameter_layers(network, classifier_parameters(network, 10))
    assert layers["conv1.weight"] == layers["bn1.bias"] == 0
    assert layers["layer1.0.bn2.weight"] == 1
    assert layers["layer2.0.downsample.0.weight"] == 3
    assert layers["layer3.1.conv1.weight"] == 6
    assert layers["fc.weight"] == 7


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "resnet18"])
def test_the_scales_equal_timm(name: str) -> None:
    import_torchvision()  # timm imports it, and importing it may need a workaround
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    network = timm.create_model(name, num_classes=10)
    classifier = [n for n, p in network.named_parameters() if p.shape[:1] == (10,)]
    schedule = ScheduleConfig(
        optimizer="adamw", layer_decay=0.75, decay_norm_bias=False, weight_decay=0.05
    )
    optimizer = build_optimizer(network.parameters(), schedule)
    split_groups(optimizer, network, schedule, classifier)
    groups = param_groups_layer_decay(
        network, 0.05, getattr(network, "no_weight_decay", set)(), layer_decay=0.75
    )

    def described(groups: list[dict[str, Any]]) -> dict[int, tuple[float, float]]:
        values = ("lr_scale", "weight_decay")
        return {id(p): tuple(g[v] for v in values) for g in groups for p in g["params"]}  # type: ignore[misc]

    assert described(optimizer.param_groups) == described(groups)


def test_the_backbone_is_slower_and_the_scales_multiply() -> None:
    network = vit()
    classifier = classifier_parameters(network, 10)
    schedule = ScheduleConfig(backbone_lr_factor=0.1, layer_decay=0.5)
    scales = learning_rate_scales(network, schedule, classifier)
    assert scales[id(network.head.weight)] == 1.0
    assert scales[id(network.norm.weight)] == pytest.approx(0.1 * 0.5)
    assert scales[id(network.cls_token)] == pytest.approx(0.1 * 0.5**4)
    optimizer = build_optimizer(network.parameters(), schedule)
    split_groups(optimizer, network, schedule, classifier)
    set_learning_rate(optimizer, 0.3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == pytest.approx({key: 0.3 * scale for key, scale in scales.items()})


@pytest.mark.parametrize(
    ("optimizer", "setting", "decayed"),
    [
        ("sgd", None, {"weight", "bias", "token"}),
        ("sgd", False, {"weight"}),
        ("adamw", None, {"weight", "token"}),
        ("adamw", True, {"weight", "bias", "token"}),
        ("adamw", False, {"weight"}),
    ],
)
def test_weight_decay_of_norms_and_biases(
    optimizer: str, setting: bool | None, decayed: set[str]
) -> None:
    network = vit()
    kinds = {"weight": network.head.weight, "bias": network.head.bias, "token": network.cls_token}
    schedule = ScheduleConfig(optimizer=optimizer, weight_decay=0.1, decay_norm_bias=setting)
    built = build_optimizer(network.parameters(), schedule)
    split_groups(built, network, schedule)
    decays = {id(p): group["weight_decay"] for group in built.param_groups for p in group["params"]}
    assert {name for name, parameter in kinds.items() if decays[id(parameter)]} == decayed
    assert set(decays.values()) <= {0.0, 0.1}


def test_defaults_leave_the_optimizer_alone() -> None:
    network = vit()
    optimizer = build_optimizer(network.parameters(), SCHEDULE)
    split_groups(optimizer, network, SCHEDULE)
    assert len(optimizer.param_groups) == 1
    assert "lr_scale" not in optimizer.param_groups[0]


class Snapshots(Watcher):
    """Keeps the weights after every epoch."""

    def __init__(self, scheme: Plain, stop_at: int | None = None) -> None:
        super().__init__(stop_at=stop_at)
        self.scheme = scheme
        self.weights: list[dict[str, Tensor]] = []

    def epoch_done(self, row: dict[str, Any], length: Any) -> None:
        super().epoch_done(row, length)
        state = self.scheme.net.state_dict()
        self.weights.append({name: tensor.clone() for name, tensor in state.items()})


def tuned(folder: Path, schedule: ScheduleConfig, stop_at: int | None = None) -> Snapshots:
    scheme = Plain()
    watcher = Snapshots(scheme, stop_at)
    fit(scheme, training(folder, watcher, schedule=schedule, classifier=HEAD))
    assert all(parameter.requires_grad for parameter in scheme.parameters())
    return watcher


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


STATISTICS = {"1.running_mean", "1.running_var", "1.num_batches_tracked"}


@pytest.mark.parametrize("frozen", [False, True])
def test_head_first_then_everything(tmp_path: Path, frozen: bool) -> None:
    schedule = replace(SCHEDULE, freeze_epochs=2, freeze_bn_stats=frozen, optimizer="adamw")
    start = Plain().net.state_dict()
    weights = tuned(tmp_path, schedule).weights
    statistics = set() if frozen else STATISTICS
    assert changed(start, weights[0]) == {*HEAD, *statistics}
    assert changed(weights[0], weights[1]) == {*HEAD, *statistics}
    assert changed(weights[1], weights[2]) == set(start) - STATISTICS | statistics


@pytest.mark.parametrize("stop_at", [3, 10, 12])
def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path, stop_at: int) -> None:
    schedule = replace(
        SCHEDULE, freeze_epochs=2, freeze_bn_stats=True, backbone_lr_factor=0.1, layer_decay=0.8
    )
    expected = tuned(tmp_path / "whole", schedule).weights[-1]
    with pytest.raises(Interrupted):
        tuned(tmp_path / "part", schedule, stop_at)
    assert same_weights(tuned(tmp_path / "part", schedule).weights[-1], expected)


def test_a_training_that_is_frozen_throughout_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"all of the 2 steps of schedule\.steps"):
        tuned(tmp_path, replace(SCHEDULE, freeze_epochs=1, steps=2))


def test_an_objective_that_misses_the_classifier_is_rejected(tmp_path: Path) -> None:
    class Features(Plain):
        def forward(self, batch: Batch) -> StepOutput:
            hidden = self.net[:2](batch.images)
            return StepOutput(hidden.square().mean(), self.net(batch.images))

    schedule = replace(SCHEDULE, freeze_epochs=1)
    with pytest.raises(ConfigError, match="reaches it: add a loss on logits"):
        fit(Features(), training(tmp_path, Watcher(), schedule=schedule, classifier=HEAD))


def test_a_network_without_a_classifier_is_rejected() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert classifier_for(network, SCHEDULE, 10) == ()
    with pytest.raises(ConfigError, match=r"^schedule\.layer_decay treats the classifier"):
        classifier_for(network, replace(SCHEDULE, layer_decay=0.5), 10)


def test_freezing_leaves_epochs_for_the_rest() -> None:
    with pytest.raises(ConfigError, match=r"schedule\.freeze_epochs=4 freezes all"):
        rules.schedule("schedule", replace(SCHEDULE, freeze_epochs=4))
