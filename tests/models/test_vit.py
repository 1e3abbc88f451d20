"""Vision transformers: sizes, shapes, names of the published weights, readouts, taps."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kdrun.config.schema import NetworkConfig
from kdrun.errors import ConfigError
from kdrun.losses.shapes import as_map
from kdrun.models.build import build_network
from kdrun.models.features.taps import FeatureExtractor, tap_shapes
from kdrun.models.layers import DropPath
from kdrun.models.measure import count_flops, count_parameters
from kdrun.models.readout import read_out
from kdrun.models.vit import VisionTransformer
from kdrun.types import InputInfo
from kdrun.vision import import_torchvision

SIZES = {  # (width, attention heads): parameters with 1,000 classes, and distilled
    (192, 3): (5_717_416, 5_910_800),
    (384, 6): (22_050_664, 22_436_432),
    (768, 12): (86_567_656, 87_338_192),
}
STAGES = ["stage1", "stage2", "stage3", "stage4"]
SMALL: dict[str, Any] = {"patch_size": 2, "width": 12, "depth": 5, "attention_heads": 3}


def small(tokens: int = 0, size: tuple[int, int] = (8, 8), **changes: Any) -> VisionTransformer:
    torch.manual_seed(0)
    settings = {**SMALL, "distillation_tokens": tokens, **changes}
    return VisionTransformer(4, 3, size, **settings)


def images(batch: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("size", "expected"), SIZES.items())
def test_parameters_are_the_published_ones(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    width, heads = size
    for tokens, parameters in enumerate(expected):
        with torch.device("meta"):
            network = VisionTransformer(
                1000, 3, (224, 224), patch_size=16, width=width, depth=12, attention_heads=heads,
                distillation_tokens=tokens,
            )  # fmt: skip
        assert count_parameters(network) == parameters


def test_flops_count_the_attention() -> None:
    """Per block 24 N D² + 4 N² D, for the patches' projection 2 · 3 p² N D."""
    tokens, width, depth = 17, 12, 5
    expected = 2 * 3 * 4 * 16 * width + depth * (24 * tokens * width**2 + 4 * tokens**2 * width)
    assert count_flops(small(), images()) == expected + 2 * width * 4


@pytest.mark.parametrize("tokens", [0, 1, 2, 5])
@pytest.mark.parametrize(
    ("classes", "channels", "size", "patch"),
    [(10, 1, (8, 8), 2), (100, 3, (32, 32), 4), (7, 2, (8, 16), 4), (1000, 3, (224, 224), 16)],
)
def test_shapes(
    tokens: int, classes: int, channels: int, size: tuple[int, int], patch: int
) -> None:
    with torch.device("meta"):
        network = VisionTransformer(
            classes, channels, size, patch_size=patch, width=12, depth=5, attention_heads=3,
            distillation_tokens=tokens,
        )  # fmt: skip
    batch = torch.empty(2, channels, *size, device="meta")
    assert network(batch).shape == network.eval()(batch).shape == (2, classes)
    assert [tuple(head.shape) for head in network.all_heads(batch)] == [(2, classes)] * (1 + tokens)
    grid = (size[0] // patch, size[1] // patch)
    assert network.pos_embed.shape == (1, 1 + tokens + grid[0] * grid[1], 12)
    assert tap_shapes(network, batch, list(network.taps)) == {
        **dict.fromkeys(["stem", *STAGES, *(f"{stage}_pre" for stage in STAGES)], (2, 12, *grid)),
        "embedding": (2, 12),
    }


def public_names(depth: int, tokens: int) -> list[str]:
    """The state dict of the published weights, in its order."""
    names = ["cls_token", *(["dist_token"] if tokens else []), "pos_embed"]
    names += ["patch_embed.proj.weight", "patch_embed.proj.bias"]
    for block in range(depth):
        names += [
            f"blocks.{block}.{layer}.{kind}"
            for layer in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
            for kind in ("weight", "bias")
        ]
    heads = [["head"], ["head", "head_dist"]][tokens]
    return names + [f"{layer}.{kind}" for layer in ("norm", *heads) for kind in ("weight", "bias")]


@pytest.mark.parametrize("tokens", [0, 1])
def test_a_state_dict_with_the_public_names_loads(tokens: int) -> None:
    network = small(tokens)
    shapes = {
        "cls_token": (1, 1, 12), "dist_token": (1, 1, 12), "pos_embed": (1, 17 + tokens, 12),
        "patch_embed.proj.weight": (12, 3, 2, 2), "attn.qkv.weight": (36, 12),
        "attn.qkv.bias": (36,), "mlp.fc1.weight": (48, 12), "mlp.fc1.bias": (48,),
        "mlp.fc2.weight": (12, 48), "attn.proj.weight": (12, 12), "head.weight": (4, 12),
        "head.bias": (4,), "head_dist.weight": (4, 12), "head_dist.bias": (4,),
    }  # fmt: skip
    state = {
        name: torch.randn(shapes.get(name, shapes.get(".".join(name.split(".")[2:]), (12,))))
        for name in public_names(5, tokens)
    }
    network.load_state_dict(state)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name])


def test_several_tokens_extend_the_names() -> None:
    state = {name: tuple(tensor.shape) for name, tensor in small(3).state_dict().items()}
    assert state["dist_token"] == (1, 3, 12)
    assert [state[f"head_dist.{i}.weight"] for i in range(3)] == [(4, 12)] * 3
    assert small(3).distillation_heads == ["head_dist.0", "head_dist.1", "head_dist.2"]
    assert small(1).distillation_heads == ["head_dist"]
    assert small(0).distillation_heads == []


@pytest.mark.parametrize("tokens", [0, 1])
def test_it_computes_what_timm_computes(tokens: int) -> None:
    import_torchvision()  # timm imports it, and it may need help
    timm = pytest.importorskip("timm", reason="timm is an optional extra")
    name = ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"][tokens]
    torch.manual_seed(0)
    other = timm.create_model(name, num_classes=7, img_size=32, depth=2).eval()
    own = VisionTransformer(
        7, 3, (32, 32), patch_size=16, width=192, depth=2, attention_heads=3,
        distillation_tokens=tokens, fusion="logits",
    ).eval()  # fmt: skip
    own.load_state_dict(other.state_dict())
    batch = images(2, 32, 32)
    torch.testing.assert_close(own(batch), other(batch))


def test_it_equals_the_encoder_of_pytorch() -> None:
    network = small(2).eval()
    layer = nn.TransformerEncoderLayer(
        12, 3, 48, 0.0, "gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    encoder = nn.TransformerEncoder(layer, 5, nn.LayerNorm(12, eps=1e-6), False).eval()
    for own, other in zip(network.blocks, encoder.layers, strict=True):
        other.self_attn.in_proj_weight.data = own.attn.qkv.weight.data
        other.self_attn.in_proj_bias.data = torch.randn(36)
        own.attn.qkv.bias.data = other.self_attn.in_proj_bias.data
        other.self_attn.out_proj.load_state_dict(own.attn.proj.state_dict())
        for mine, theirs in (("norm1", "norm1"), ("norm2", "norm2")):
            getattr(other, theirs).load_state_dict(getattr(own, mine).state_dict())
        other.linear1.load_state_dict(own.mlp.fc1.state_dict())
        other.linear2.load_state_dict(own.mlp.fc2.state_dict())
    batch = images()
    unfolded = nn.functional.unfold(batch, 2, stride=2).transpose(1, 2)
    projection = network.patch_embed.proj
    patches = unfolded @ projection.weight.flatten(1).T + projection.bias
    tokens = torch.cat([network.cls_token.expand(3, 1, 12), network.dist_token.expand(3, 2, 12),
                        patches], 1) + network.pos_embed  # fmt: skip
    encoded = encoder(tokens)
    outputs = FeatureExtractor(network, ["stage4"], embedding=True)(batch)
    torch.testing.assert_close(outputs.embedding, encoded[:, 0])
    for number, head in enumerate([network.head, *network.head_dist]):
        expected = head(encoded[:, number])
        torch.testing.assert_close(network.all_heads(batch)[number], expected)
        if number:
            torch.testing.assert_close(outputs.distillation[number - 1], expected)
    for block in encoder.layers:
        tokens = block(tokens)
    expected = tokens[:, 3:].transpose(1, 2).reshape(3, 12, 4, 4)
    torch.testing.assert_close(outputs.features["stage4"], expected)


def test_stages_are_quarters_of_the_blocks_and_all_tokens_are_at_the_blocks_path() -> None:
    network = small(1, depth=8).eval()
    names = ["stage1", "stage2", "stage4", "blocks.1", "blocks.3", "blocks.7"]
    features = FeatureExtractor(network, names)(images()).features
    for stage, block in (("stage1", "blocks.1"), ("stage2", "blocks.3"), ("stage4", "blocks.7")):
        assert features[block].shape == (3, 18, 12)
        assert torch.equal(features[stage], as_map(features[block]))


def test_training_answers_with_the_class_head_and_evaluation_as_asked() -> None:
    batch = images()
    for tokens in (1, 3):
        network = small(tokens)
        heads = network.all_heads(batch)
        assert torch.equal(network.train()(batch), heads[0])
        p = [head.double().softmax(1) for head in heads]
        network.eval()
        assert torch.equal(small(tokens, inference="class").eval()(batch), heads[0])
        both = small(tokens, inference="both").eval()(batch)
        torch.testing.assert_close(both.softmax(1).double(), sum(p) / len(p))
        distilled = small(tokens, inference="distillation").eval()(batch)
        torch.testing.assert_close(distilled.softmax(1).double(), sum(p[1:]) / tokens)
        mean = small(tokens, inference="both", fusion="logits").eval()(batch)
        torch.testing.assert_close(mean, sum(heads) / len(heads))


def test_one_head_is_read_as_it_is() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    assert torch.equal(read_out([logits], "both", "probabilities"), logits)
    both = read_out([logits, logits.flip(1)], "both", "probabilities")
    torch.testing.assert_close(both.exp(), torch.tensor([[0.5, 0.0, 0.5]]))
    assert both[0, 0].item() == pytest.approx(-math.log(2))


def test_only_the_class_head_learns_from_its_logits() -> None:
    network = small(2)
    network(images()).sum().backward()
    assert network.head.weight.grad is not None
    assert all(head.weight.grad is None for head in network.head_dist)
    assert network.dist_token.grad is not None  # attention reads the tokens


def test_drop_path_leaves_whole_images_out_and_keeps_the_mean() -> None:
    layer = DropPath(0.25)
    branch = torch.ones(4000, 2, 3)
    torch.manual_seed(0)
    seen = layer(branch)
    assert seen.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(seen[:, :1, :1].expand_as(seen), seen)
    assert seen.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(layer.eval()(branch), branch)
    rates = [block.drop_path.rate for block in small(drop_path=0.2).blocks]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.15, 0.2])


def test_the_seed_decides_the_weights_and_their_scale_is_deits() -> None:
    one, two = small(2), small(2)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name])
    weight = VisionTransformer(
        4, 3, (8, 8), patch_size=4, width=192, depth=1, attention_heads=3
    ).blocks[0]  # fmt: skip
    assert weight.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not weight.attn.qkv.bias.any()
    assert one.cls_token.any()
    assert one.dist_token.any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 3}, r"patch_size=3 does not divide images of 8x8 pixels"),
        ({"patch_size": 0}, r"patch_size=0 must be at least 1"),
        ({"attention_heads": 5}, r"width=12 cannot be divided among attention_heads=5.*e\.g\. 10"),
        ({"attention_heads": 0}, r"attention_heads=0 must be at least 1"),
        ({"depth": 0}, r"depth=0 must be at least 1"),
        ({"distillation_tokens": -1}, r"distillation_tokens=-1 must be at least 0"),
        ({"drop_path": 1.0}, r"drop_path=1 must lie in"),
        ({"inference": "clas"}, r"inference=clas does not exist.*class"),
        ({"fusion": "mean"}, r"fusion=mean does not exist"),
        ({"inference": "distillation"}, r"inference=distillation needs a distillation head"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    config = NetworkConfig("vit", "kdrun.models.vit.VisionTransformer", {**SMALL, **changes}, {})
    with pytest.raises(ConfigError, match=message):
        build_network(config, InputInfo(4, 3, (8, 8)))


def test_images_are_resized_for_a_network_of_another_size() -> None:
    network = small(1, size=(12, 12)).eval()
    outputs = FeatureExtractor(network, image_size=(12, 12))(images())
    larger = nn.functional.interpolate(images(), (12, 12), mode="bilinear", antialias=True)
    assert torch.equal(outputs.logits, network(larger))
    assert torch.equal(
        FeatureExtractor(network, image_size=(12, 12))(larger).logits, network(larger)
    )
