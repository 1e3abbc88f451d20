"""The named recipes: they compose and are accepted, and their parts do what they name."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module

from kdrun.cli import config_groups
from kdrun.config import composition, parse, rules
from kdrun.config.schema import DistillConfig, ScheduleConfig
from kdrun.engine.optim import build_optimizer, set_learning_rate
from kdrun.engine.parameter_groups import split_groups
from kdrun.models.vit import VisionTransformer
from kdrun.vision import import_torchvision

FOLDER = Path(__file__).resolve().parents[2] / "configs"
NAMED = ("timm_a2", "timm_a3", "deit", "cifar_long", "finetune")
composition.register()


def composed(*words: str) -> DistillConfig:
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        config = parse.distill_config(compose("distill", list(words)))
    rules.distill(config)
    return config


@pytest.mark.parametrize("name", NAMED)
def test_it_is_accepted_with_its_augmentation_and_names_its_source(name: str) -> None:
    if name.startswith("timm") and find_spec("timm") is None:
        pytest.skip("timm is not installed")
    assert name in config_groups.list_groups()["schedule"]
    has_augment = name in config_groups.list_groups()["augment"]
    assert has_augment == (name in ("timm_a2", "timm_a3", "deit"))
    config = composed(f"schedule={name}", *([f"augment={name}"] if has_augment else []))
    assert config.schedule != ScheduleConfig()
    text = (FOLDER / "schedule" / f"{name}.yaml").read_text()
    assert "arXiv" in text
    assert "Published" in text or "Measured" in text


def test_deit_has_1024_images_per_step_and_decays_no_tokens() -> None:
    schedule = composed("schedule=deit", "augment=deit").schedule
    assert schedule.batch_size * schedule.accumulate == 1024
    network = VisionTransformer(
        10, 3, (8, 8), patch_size=4, width=12, depth=1, attention_heads=3, distillation_tokens=1
    )
    optimizer = build_optimizer(network.parameters(), schedule)
    split_groups(optimizer, network, schedule)
    decayed = {id(p) for g in optimizer.param_groups if g["weight_decay"] for p in g["params"]}
    names = {name for name, parameter in network.named_parameters() if id(parameter) in decayed}
    assert names
    assert all(name.endswith("weight") and "norm" not in name for name in names)


@pytest.mark.heavy
def test_lamb_is_timms() -> None:
    import_torchvision()
    timm_optim = pytest.importorskip("timm.optim")
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    schedule = ScheduleConfig(optimizer="lamb", lr=0.01, weight_decay=0.1)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias]}]
    expected = timm_optim.Lamb(groups, lr=0.01, weight_decay=0.0)
    optimizer = build_optimizer(ours.parameters(), schedule)
    for step in range(5):
        set_learning_rate(optimizer, 0.01)
        for network, one in ((ours, optimizer), (theirs, expected)):
            one.zero_grad()
            network(torch.full((2, 4), step + 1.0)).square().sum().backward()
            one.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=0, atol=0)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=0, atol=0)
