"""A frozen network's convolutions on a processor, each in one pass with what follows it.

oneDNN, the library behind PyTorch's convolutions there, can add another tensor to a convolution's
result and take its ReLU before the result is written to memory; with weights that lie in the order
it reads them in. The operations are the same ones, in the same order; in bf16 a sum is rounded once
instead of twice. PyTorch does this when it compiles a network; here it is done without the compiler
and its waiting time.
"""

import operator
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from kdrun.models.dry_run import dry_run
from kdrun.models.features.hooks import INPUT_SUFFIX

ADDITIONS: tuple[Callable[..., Any], ...] = (operator.add, operator.iadd, torch.add)
RELUS: tuple[Callable[..., Any], ...] = (F.relu, torch.relu)
# Modules that write what they put out into new memory.
FRESH = (nn.Conv2d, nn.BatchNorm2d)
BATCH = 64  # what the weights are made ready for; a teacher is asked about so many at once
# Of the largest logit. In float32 the bits are the same on most processors.
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.05}


class FusedConvolution(nn.Module):
    """x `[B, in, H, W]` (and what is added, `[B, out, H', W']`) → relu(conv(x) + added).

    conv: whose weights are copied; later changes of it are not seen. size: (H, W) it is made ready
    for; others are right too. relu: whether it ends in one. overwrite: the result takes the place
    of `added`, which nobody reads afterwards: faster.
    """

    def __init__(self, conv: nn.Conv2d, size: tuple[int, int], relu: bool, overwrite: bool) -> None:
        super().__init__()
        settings = (list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups)
        shape = [BATCH, conv.in_channels, *size]
        weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *settings, shape)
        self.settings = settings
        self.dtype = conv.weight.dtype
        # no buffer: in the order that oneDNN chose, the tensor can be neither copied nor moved
        self.held = (weight, conv.bias)
        self.relu = "relu" if relu else None
        self.overwrite = overwrite

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        weight, bias = self.held
        x = x.to(self.dtype)  # the images are float32, and autocast does not know what follows
        fused: Tensor
        if added is None:
            fused = torch.ops.mkldnn._convolution_pointwise(
                x, weight, bias, *self.settings, self.relu or "none", [], ""
            )
        elif self.overwrite:
            fused = torch.ops.mkldnn._convolution_pointwise_.binary(
                added, x, weight, bias, *self.settings, "add", 1.0, self.relu, [], ""
            )
        else:
            fused = torch.ops.mkldnn._convolution_pointwise.binary(
                x, added, weight, bias, *self.settings, "add", 1.0, self.relu, [], ""
            )
        return fused


def fuse_convolutions(
    network: nn.Module,
    sample: Tensor,
    taps: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
) -> tuple[nn.Module, int]:
    """(the network with fused convolutions, how many there are), or (`network` itself, 0).

    network: in eval mode, frozen; it is left as it is. sample: `[B, C, H, W]`, on a processor.
    taps: module paths, `PATH` or `PATH:in`, that must see what they see now.
    dtype: float32 | bfloat16, in which its convolutions' weights are, and autocast runs the rest.

    The network is left alone where its forward depends on what it sees, where a tap reads a module
    that is made of others, and where the fused network does not answer alike.
    """
    assert not network.training, "only a frozen network can be fused"
    extractor = {tap.removesuffix(INPUT_SUFFIX) for tap in taps}
    if sample.device.type != "cpu" or not hasattr(torch.ops.mkldnn, "_convolution_pointwise"):
        return network, 0
    autocast = torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
    try:
        with dry_run(network), autocast:
            traced = fx.symbolic_trace(network)
            ShapeProp(traced).propagate(sample)
            found = _Fusion(traced, extractor, dtype).run()
            expected, got = network(sample), traced(sample)
            furthest = TOLERANCES[dtype] * float(expected.abs().max())
            alike = float((got - expected).abs().max()) <= furthest
    except Exception:  # whatever a network's code does when it is traced instead of run
        return network, 0
    here = {str(node.target) for node in traced.graph.nodes if node.op == "call_module"}
    return (traced, found) if found and alike and extractor <= here else (network, 0)


class _Fusion:
    """Rewrites a traced network, whose nodes know their shapes."""

    def __init__(self, traced: fx.GraphModule, extractor: set[str], dtype: torch.dtype) -> None:
        self.traced = traced
        self.extractor = extractor
        self.dtype = dtype
        self.modules = dict(traced.named_modules())

    def run(self) -> int:
        """Fuse all there is to fuse; returns how many convolutions were."""
        graph = self.traced.graph
        for node in list(graph.nodes):
            if isinstance(self._module(node), nn.Identity | nn.Dropout):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
        count = sum(self._fuse(node) for node in list(graph.nodes))
        for node in graph.nodes:
            self._overwrite(node)
        graph.lint()
        self.traced.recompile()
        self.traced.delete_all_unused_submodules()
        return count

    def _fuse(self, node: fx.Node) -> bool:
        conv = self._module(node)
        if type(conv) is not nn.Conv2d or not self._is_plain(conv) or _dtype(node) != self.dtype:
            return False
        chain: list[fx.Node] = [node]
        added, follower = None, _only_user(node)
        if follower is not None and (added := self._added(follower, node)) is not None:
            chain.append(follower)
            follower = _only_user(follower)
        relu = follower is not None and self._is_relu(follower)
        if relu and follower is not None:
            chain.append(follower)
        self._replace(chain, conv, added, relu)
        return True

    def _overwrite(self, node: fx.Node) -> None:
        """A ReLU that is left writes over what it reads, where nobody else reads that."""
        if type(self._module(node)) is not nn.ReLU:
            return
        taken = node.args[0]
        if isinstance(taken, fx.Node) and self._is_fresh(taken) and _only_user(taken) is node:
            node.target = f"fused_{node.name}"
            self.traced.add_submodule(node.target, nn.ReLU(inplace=True))

    def _replace(
        self, chain: list[fx.Node], conv: nn.Conv2d, added: fx.Node | None, relu: bool
    ) -> None:
        """One module instead of a convolution and what follows it, each used by the next alone."""
        graph, taken = self.traced.graph, chain[0].args[0]
        assert isinstance(taken, fx.Node)
        height, width = taken.meta["tensor_meta"].shape[2:]
        name = f"fused_{chain[0].name}"  # of the call: a module may be called twice
        overwrite = added is not None and self._is_spent(added, chain)
        module = FusedConvolution(conv, (height, width), relu, overwrite)
        self.traced.add_submodule(name, module)
        self.modules[name] = module
        with graph.inserting_after(chain[-1]):
            fused = graph.call_module(name, (taken,) if added is None else (taken, added))
        fused.meta = dict(chain[-1].meta)
        chain[-1].replace_all_uses_with(fused)
        for old in reversed(chain):
            graph.erase_node(old)

    def _is_spent(self, added: fx.Node, chain: list[fx.Node]) -> bool:
        """Whether nothing but the addition in `chain` reads it by then, nor holds a view of it."""
        order = {node: place for place, node in enumerate(self.traced.graph.nodes)}
        readers = [user for user in added.users if user not in chain[1:]]
        return self._is_fresh(added) and all(
            user is not chain[0] and self._is_fresh(user) and order[user] < order[chain[1]]
            for user in readers
        )

    def _is_fresh(self, node: fx.Node) -> bool:
        return isinstance(self._module(node), (*FRESH, FusedConvolution))

    def _module(self, node: fx.Node) -> nn.Module | None:
        """What the node calls, unless a tap reads it."""
        if node.op != "call_module" or node.target in self.extractor:
            return None
        return self.modules.get(str(node.target))

    def _is_plain(self, conv: nn.Conv2d) -> bool:
        """Padded with zeros by numbers, weights of the right type, and nobody listens to it."""
        listened = conv._forward_hooks or conv._forward_pre_hooks
        numbers = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
        return numbers and not listened and conv.weight.dtype == self.dtype

    def _added(self, node: fx.Node, summand: fx.Node) -> fx.Node | None:
        """What an addition adds to `summand`: a tensor of the same shape, which is there before."""
        if node.op != "call_function" or node.target not in ADDITIONS or node.kwargs:
            return None
        others = [arg for arg in node.args if arg is not summand]
        if len(node.args) != 2 or len(others) != 1 or not isinstance(others[0], fx.Node):
            return None
        alike = _shape(others[0]) == _shape(summand)
        return others[0] if alike and _dtype(others[0]) == self.dtype else None

    def _is_relu(self, node: fx.Node) -> bool:
        called = node.op == "call_function" and node.target in RELUS
        method = node.op == "call_method" and node.target == "relu"
        return called or method or type(self._module(node)) is nn.ReLU


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    meta = node.meta.get("tensor_meta")
    return None if meta is None else tuple(meta.shape)


def _dtype(node: fx.Node) -> torch.dtype | None:
    return getattr(node.meta.get("tensor_meta"), "dtype", None)
