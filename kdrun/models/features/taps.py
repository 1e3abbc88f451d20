"""Features by name: a tap is a named tensor inside a network that losses read.

A network may declare its taps in an attribute `taps`, a dict of tap name → module path, where
`PATH` is the output of that module and `PATH:in` its first input. The standard names are

- `stem`: after the first convolution and its activation, if any;
- `stage1` ... `stageN`: the output of each stage;
- `stage1_pre` ... `stageN_pre`: the same before the last activation;
- `embedding`: the input of the classifier.

Any module path is a tap name too, so `layer2.0.conv1` needs no declaration. For networks without
declared taps, `kdrun.models.features.detect` finds the stages in one forward pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kdrun.errors import ConfigError, did_you_mean
from kdrun.models.dry_run import dry_run, logits_of
from kdrun.models.features.detect import detect_taps
from kdrun.models.features.hooks import INPUT_SUFFIX, Record, attach
from kdrun.models.normalise import Renormalise
from kdrun.models.resize import Resize
from kdrun.models.select import SelectOutputs
from kdrun.types import Normalisation, Outputs


class TapPaths(dict[str, str]):
    """Tap name → module path of a network, and all its module paths."""

    def __init__(self, paths: Mapping[str, str], modules: Iterable[str] = ()) -> None:
        super().__init__(paths)
        self.modules = frozenset(modules)

    def has(self, name: str) -> bool:
        """Whether `name` is a tap or the path of a module, with or without `:in`."""
        return name in self or name.removesuffix(INPUT_SUFFIX) in self.modules


def tap_paths(
    network: nn.Module, sample: Tensor | None = None, extra: Mapping[str, str] | None = None
) -> TapPaths:
    """The declared taps of `network`, or those detected with `sample`, plus `extra`.

    sample: `[B, C, H, W]`, required only if the network declares no taps.
    extra: additional or overriding taps, name → module path.
    Raises ConfigError for a path that does not exist in the network.
    """
    modules = [name for name, _ in network.named_modules() if name]
    declared = getattr(network, "taps", None)
    if not isinstance(declared, dict):
        declared = {} if sample is None else detect_taps(network, sample)
    paths = TapPaths({**declared, **(extra or {})}, modules)
    for name, path in paths.items():
        if path.removesuffix(INPUT_SUFFIX) not in paths.modules:
            raise ConfigError(
                f"The tap {name}: {path} is not in the network {type(network).__name__}."
                + (did_you_mean(path, modules) or f" It has: {_first(modules)}.")
            )
    return paths


class FeatureExtractor(nn.Module):
    """A network that also returns features: images `[B, C, H, W]` → `Outputs`.

    names: taps or module paths; the keys of `Outputs.features`.
    paths: from `tap_paths`; None uses the network's declared taps.
    embedding: also return the classifier's input, `[B, D]`.
    normalisation: (of the given images, expected by the network).
    image_size: (H, W) to which images are resized; None keeps their size.
    outputs: indices of the network's outputs that are the classes, in order; None: all outputs.

    If the network has an attribute `distillation_heads` (module paths of the classifiers of its
    distillation tokens), `Outputs.distillation` holds their logits.

    `.network` is the wrapped network; its state dict and forward do not change. Hooks are
    registered once, are inactive outside this module's forward, and are removed by `close()`. For a
    module that runs several times in one forward, the last tensor counts.
    Raises ConfigError for unknown names, and on the first forward for modules that never run, do
    not output a tensor, or whose tensor the network modifies in place.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str] = (),
        paths: Mapping[str, str] | None = None,
        embedding: bool = False,
        normalisation: tuple[Normalisation, Normalisation] | None = None,
        image_size: tuple[int, int] | None = None,
        outputs: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.names = tuple(names)
        self.embedding = embedding
        self.heads = distillation_heads(network)
        self.renormalise = _renormalise(normalisation)
        self.resize = None if image_size is None else Resize(image_size)
        self.select = None if outputs is None else SelectOutputs(outputs)
        self._record = Record()
        requested = [*names, *self.heads, *(["embedding"] if embedding else [])]
        self._taps = _resolve(network, requested, paths)
        self._handles = attach(network, self._taps, self._record)
        self._hooked = True  # always, or only within forward

    def forward(self, images: Tensor) -> Outputs:
        if self.renormalise is not None:
            images = self.renormalise(images)
        if self.resize is not None:
            images = self.resize(images)
        if not self._taps:
            return Outputs(self._classes(self.network(images)))
        if self._hooked:
            return self._run(images)
        handles = attach(self.network, self._taps, self._record)
        try:
            return self._run(images)
        finally:
            for handle in handles:
                handle.remove()

    def _run(self, images: Tensor) -> Outputs:
        self._record.start()
        try:
            logits = self._classes(self.network(images))
            return self._outputs(logits)
        finally:
            self._record.stop()

    def hook_while_running(self) -> None:
        """Leave no hooks on the network outside a forward, from now on."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._hooked = [], False

    def _outputs(self, logits: Tensor) -> Outputs:
        if not self._taps:
            return Outputs(logits)
        tensors = self._record.take()
        embedding = as_rows(tensors["embedding"]) if self.embedding else None
        features = {name: tensors[name] for name in self.names}
        distillation = tuple(self._classes(tensors[path]) for path in self.heads)
        return Outputs(logits, features, embedding, distillation=distillation)

    def _classes(self, output: Any) -> Tensor:
        """The logits of the data set's classes."""
        if self.select is None:
            return logits_of(output, self.network.training)
        return self.select(output)

    def forward_shared(
        self, extractors: Sequence["FeatureExtractor"], images: Tensor
    ) -> list[Outputs]:
        """The outputs of this extractor and of `extractors`, from one forward pass.

        extractors: of the same network, normalisation and image size.
        """
        for extractor in extractors:
            extractor._record.start()
        try:
            outputs: Outputs = self(images)
            shared = [extractor._outputs(outputs.logits) for extractor in extractors]
            return [outputs, *shared]
        finally:
            for extractor in extractors:
                extractor._record.stop()

    @property
    def places(self) -> list[str]:
        """The captured module paths (`PATH` or `PATH:in`)."""
        return list(self._taps.values())

    def reattach(self) -> None:
        """Register the hooks again after modules of the network were replaced."""
        for handle in self._handles:
            handle.remove()
        self._handles = attach(self.network, self._taps, self._record)

    def close(self) -> None:
        """Remove the hooks; afterwards only logits are returned."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._taps = [], {}
        self.names, self.embedding, self.heads = (), False, ()


def distillation_heads(network: nn.Module) -> tuple[str, ...]:
    """Module paths of the classifiers of distillation tokens; empty for most networks."""
    declared = getattr(network, "distillation_heads", ())
    return tuple(declared) if isinstance(declared, list | tuple) else ()


def tap_shapes(
    network: nn.Module,
    sample: Tensor,
    names: Sequence[str],
    paths: Mapping[str, str] | None = None,
) -> dict[str, tuple[int, ...]]:
    """The shapes, batch first, of the named taps for `sample` `[B, C, H, W]`."""
    extractor = FeatureExtractor(
        network, names, tap_paths(network, sample) if paths is None else paths
    )
    try:
        with dry_run(network):
            features = extractor(sample).features
    finally:
        extractor.close()
    return {name: tuple(tensor.shape) for name, tensor in features.items()}


def as_rows(embedding: Tensor) -> Tensor:
    """An embedding as `[B, D]`; a map `[B, D, H, W]` (before a 1x1 convolution) is averaged."""
    if embedding.dim() == 4:
        return embedding.mean((2, 3))
    return embedding.flatten(1)


def unknown_tap(who: str, name: str, paths: Mapping[str, str]) -> ConfigError:
    """The error for an unknown tap; it lists the existing ones."""
    modules = sorted(getattr(paths, "modules", ()))
    known = ", ".join(paths) or "no named taps"
    hint = did_you_mean(name, [*paths, *modules])
    paths_hint = f", and any module path such as {_deepest(modules)}" if modules else ""
    return ConfigError(f"The {who} has no tap '{name}': it has {known}{paths_hint}.{hint}")


def _resolve(
    network: nn.Module, names: Sequence[str], paths: Mapping[str, str] | None
) -> dict[str, str]:
    """Name → module path of the taps to capture."""
    if not names:
        return {}
    known = TapPaths(tap_paths(network) if paths is None else paths, dict(network.named_modules()))
    for name in names:
        if not known.has(name):
            raise unknown_tap(f"network {type(network).__name__}", name, known)
    return {name: known.get(name, name) for name in names}


def _renormalise(normalisation: tuple[Normalisation, Normalisation] | None) -> Renormalise | None:
    if normalisation is None or normalisation[0] == normalisation[1]:
        return None
    return Renormalise(*normalisation)


def _deepest(modules: Sequence[str]) -> str:
    return max(modules, key=lambda path: path.count("."))


def _first(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
