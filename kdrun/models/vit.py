"""Vision transformers, with a class token and any number of distillation tokens.

Sources: Dosovitskiy et al., ViT (arXiv 2010.11929), section 3.1; Touvron et al., DeiT (arXiv
2012.12877), section 4. Parameter names and shapes match the published DeiT weights, so
that they load.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdrun.errors import ConfigError
from kdrun.models.layers import DropPath, drop_path_rates, stage_taps
from kdrun.models.readout import ManyHeads, read_out, require_readout
from kdrun.ranges import Channels, Layers, Pixels, Positive, Range, Share, ranged

MAX_STAGES = 4
NORM_EPSILON = 1e-6
INITIAL_STD = 0.02  # of a normal distribution cut at ±2


class PatchEmbedding(nn.Module):
    """Splits the image into patches and projects them: `[B, C, H, W]` → `[B, N, width]`."""

    def __init__(self, in_channels: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        patches: Tensor = self.proj(images)
        return patches.flatten(2).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head self-attention; keeps the shape `[B, N, width]`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        # [B, N, 3·width] → [3, B, heads, N, width / heads]
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value)
        output: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """Pre-norm residual attention, then a pre-norm residual two-layer MLP."""

    def __init__(self, width: int, heads: int, mlp_width: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=nn.Linear(width, mlp_width),
                act=nn.GELU(),
                fc2=nn.Linear(mlp_width, width),
            )
        )
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        output: Tensor = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return output


class PatchMap(nn.Module):
    """Arranges patch tokens as a feature map: `[B, L + N, D]` → `[B, D, h, w]`.

    leading: number L of leading tokens that are not patches. grid: (h, w), h · w = N.
    """

    def __init__(self, leading: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.leading = leading
        self.grid = grid

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens[:, self.leading :].transpose(1, 2).unflatten(2, self.grid)


class VisionTransformer(ManyHeads):
    """Images `[B, in_channels, H, W]` → logits `[B, num_classes]`.

    In training mode, the logits are those of the class head; in evaluation mode, those selected by
    `inference`, for every user of the network. `all_heads` returns the logits of each head.

    image_size: (H, W), multiples of `patch_size`; the position embedding is for this size only.
    width, depth, attention_heads: channels of a token, number of blocks, heads in each.
    mlp_ratio: the perceptron's hidden units per channel.
    drop_path: share of images that skip the last block in training; it rises linearly from 0.
    distillation_tokens: 0 for ViT, 1 for the distilled DeiT, or one for each of n teachers. One
        has the names of DeiT (`dist_token` `[1, 1, D]`, `head_dist`); of n > 1 `dist_token` is
        `[1, n, D]` and the heads are `head_dist.0` ... `head_dist.n-1`.
    inference: class | distillation | both; the head, or heads, that answer in evaluation mode.
    fusion: probabilities | logits; how several of them are put together (`models.readout`).

    Taps: `stem` (the patches' embeddings) and `stage1` ... `stage4` (after each quarter of the
    blocks), as maps `[B, width, H / patch_size, W / patch_size]`; `stage1_pre` ... are the same,
    because no activation ends a block; `embedding`, the class token after the last normalisation.
    All tokens after block i are at the path `blocks.i`.
    `class_head` and `distillation_heads` are the paths of the classifiers.
    Raises ConfigError for sizes and counts that do not go together.
    """

    @ranged
    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        image_size: tuple[int, int],
        *,
        patch_size: Pixels,
        width: Channels,
        depth: Layers,
        attention_heads: Channels,
        mlp_ratio: Positive = 4.0,
        drop_path: Share = 0.0,
        distillation_tokens: Annotated[int, Range(low=0, high=1000)] = 0,
        inference: str = "both",
        fusion: str = "probabilities",
    ) -> None:
        super().__init__()
        _check(width, attention_heads, mlp_ratio)
        require_readout(inference, fusion, distillation_tokens)
        grid = _grid(image_size, patch_size)
        leading = 1 + distillation_tokens
        self.inference = inference
        self.fusion = fusion
        self.patch_embed = PatchEmbedding(in_channels, patch_size, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = _tokens(distillation_tokens, width)
        self.pos_embed = nn.Parameter(torch.zeros(1, leading + grid[0] * grid[1], width))
        rates = drop_path_rates(drop_path, depth)
        hidden = int(width * mlp_ratio)
        self.blocks = nn.ModuleList(Block(width, attention_heads, hidden, rate) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.head = nn.Linear(width, num_classes)
        self.head_dist = _heads(distillation_tokens, width, num_classes)
        self.class_head = "head"
        self.distillation_heads = _head_paths(distillation_tokens)
        self.stage_ends = _stage_ends(depth)
        names = ("stem", *self.stage_ends.values())
        self.maps = nn.ModuleDict({name: PatchMap(leading, grid) for name in names})
        self.taps = self._declared_taps()
        self._initialise()

    def keep_blocks(self, kept: Sequence[int]) -> None:
        """Remove all blocks but those with these indices; the stages are quarters of the rest."""
        self.blocks = nn.ModuleList(self.blocks[number] for number in kept)
        self.stage_ends = _stage_ends(len(kept))
        self.taps = self._declared_taps()

    def _declared_taps(self) -> dict[str, str]:
        stages = [f"maps.{name}" for name in self.stage_ends.values()]
        return stage_taps(stages, stages, self.class_head, stem="maps.stem")

    def all_heads(self, images: Tensor) -> list[Tensor]:
        """Logits `[B, num_classes]` of the class head, then of each distillation token's head."""
        tokens = self.norm(self._encode(images))
        heads = self.head_dist if isinstance(self.head_dist, nn.ModuleList) else [self.head_dist]
        logits = [self.head(tokens[:, 0])]
        logits += [head(tokens[:, i]) for i, head in enumerate(heads, 1) if head is not None]
        return logits

    def no_weight_decay(self) -> set[str]:
        """Parameters that `schedule.decay_norm_bias=false` also leaves without weight decay."""
        return {"cls_token", "dist_token", "pos_embed"}

    def forward(self, images: Tensor) -> Tensor:
        heads = self.all_heads(images)
        return heads[0] if self.training else read_out(heads, self.inference, self.fusion)

    def _encode(self, images: Tensor) -> Tensor:
        """Tokens `[B, 1 + distillation tokens + patches, width]` after the last block.

        The maps only serve the taps.
        """
        patches = self.patch_embed(images)
        leading = [self.cls_token] if self.dist_token is None else [self.cls_token, self.dist_token]
        expanded = [token.expand(images.shape[0], -1, -1) for token in leading]
        tokens = torch.cat([*expanded, patches], dim=1) + self.pos_embed
        self.maps["stem"](tokens)
        for number, block in enumerate(self.blocks):
            tokens = block(tokens)
            if number in self.stage_ends:
                self.maps[self.stage_ends[number]](tokens)
        return tokens

    def _initialise(self) -> None:
        """As in DeiT: weights from a truncated normal distribution, zero biases."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=INITIAL_STD)
                nn.init.zeros_(module.bias)
        for tokens in (self.cls_token, self.dist_token, self.pos_embed):
            if tokens is not None:
                nn.init.trunc_normal_(tokens, std=INITIAL_STD)


def _stage_ends(depth: int) -> dict[int, str]:
    """The last block of each stage → the stage's name."""
    count = min(MAX_STAGES, depth)
    return {depth * i // count - 1: f"stage{i}" for i in range(1, count + 1)}


def _check(width: int, attention_heads: int, mlp_ratio: float) -> None:
    if width % attention_heads:
        raise ConfigError(
            f"width={width} cannot be divided among attention_heads={attention_heads}: take a "
            f"multiple, e.g. {attention_heads * max(width // attention_heads, 1)}."
        )
    if int(width * mlp_ratio) < 1:
        raise ConfigError(
            f"mlp_ratio={mlp_ratio:g} with width={width} leaves the perceptrons without units: "
            f"use at least {1 / width:.2g} (usual: 4)."
        )


def _grid(image_size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """(rows, columns) of patches. Raises ConfigError for an indivisible image size."""
    height, width = image_size
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ConfigError(
            f"patch_size={patch_size} does not divide images of {height}x{width} pixels: set "
            "another patch_size (4 for 32x32, 2 for 8x8, 16 for 224x224), or resize the images."
        )
    return height // patch_size, width // patch_size


def _tokens(count: int, width: int) -> nn.Parameter | None:
    return nn.Parameter(torch.zeros(1, count, width)) if count else None


def _heads(count: int, width: int, num_classes: int) -> nn.Linear | nn.ModuleList | None:
    if count <= 1:
        return nn.Linear(width, num_classes) if count else None
    return nn.ModuleList(nn.Linear(width, num_classes) for _ in range(count))


def _head_paths(count: int) -> list[str]:
    return ["head_dist"] * count if count <= 1 else [f"head_dist.{i}" for i in range(count)]
