"""Features by name: a tap is a named place in a network whose tensor a loss reads.

A network may declare its taps in an attribute `taps`, a dict of tap name → module path, where
`PATH` is the output of that module and `PATH:in` its first input. The standard names are

- `stem`: after the first convolution (and its activation, where there is one);
- `stage1` ... `stageN`: what each stage puts out;
- `stage1_pre` ... `stageN_pre`: the same before the last activation;
- `embedding`: the input of the classifier.

The path of any module is a tap name as well, so `layer2.0.conv1` needs no declaration. Networks
that declare nothing are run once and their stages are found by `kdrun.models.detect`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kdrun.errors import ConfigError, did_you_mean
from kdrun.models.detect import detect_taps
from kdrun.models.dry_run import dry_run, logits_of
from kdrun.models.hooks import INPUT_SUFFIX, Record, attach
from kdrun.models.normalise import Renormalise
from kdrun.models.resize import Resize
from kdrun.models.select import SelectOutputs
from kdrun.types import Normalisation, Outputs


class TapPaths(dict[str, str]):
    """Tap name → module path of one network, and all the module paths it has."""

    def __init__(self, paths: Mapping[str, str], modules: Iterable[str] = ()) -> None:
        super().__init__(paths)
        self.modules = frozenset(modules)

    def has(self, name: str) -> bool:
        """Whether `name` is a tap or the path of a module, with or without `:in`."""
        return name in self or name.removesuffix(INPUT_SUFFIX) in self.modules


def tap_paths(
    network: nn.Module, sample: Tensor | None = None, extra: Mapping[str, str] | None = None
) -> TapPaths:
    """The taps of `network`: declared, or else detected with `sample`, and then `extra`.

    sample: `[B, C, H, W]`, only used (and needed) when the network declares no taps.
    extra: further or replaced taps, name → module path.
    Raises ConfigError for a path that no module of the network has.
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
                + (did_you_mean(path, modules) or f" It has: {_some(modules)}.")
            )
    return paths


class FeatureExtractor(nn.Module):
    """A network that also returns the features asked for: images `[B, C, H, W]` → `Outputs`.

    names: taps or module paths; `Outputs.features` has these keys.
    paths: from `tap_paths`; None takes the network's declared taps.
    embedding: also return the classifier's input, `[B, D]`.
    normalisation: (how the images come, how the network was trained to see them).
    image_size: (H, W) the network sees, where that is not the images' own; they are resized.
    outputs: the network's outputs that are the classes, in their order; None: all, as they come.

    A network that lists module paths in an attribute `distillation_heads`, the classifiers of its
    distillation tokens, has their logits in `Outputs.distillation`.

    The wrapped network is `.network`; its own state dict and its forward are as before. The hooks
    are set once, do nothing outside this module's forward, and are removed by `close()`. A module
    that runs several times in one forward gives its last tensor.
    Raises ConfigError for names that do not exist, and on the first forward for places that never
    run, that hold no tensor, or whose tensor the network overwrites in place.
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
        wanted = [*names, *self.heads, *(["embedding"] if embedding else [])]
        self._taps = _resolve(network, wanted, paths)
        self._handles = attach(network, self._taps, self._record)

    def forward(self, images: Tensor) -> Outputs:
        if self.renormalise is not None:
            images = self.renormalise(images)
        if self.resize is not None:
            images = self.resize(images)
        if not self._taps:
            return Outputs(self._classes(self.network(images)))
        self._record.start()
        try:
            logits = self._classes(self.network(images))
            return self._outputs(logits)
        finally:
            self._record.stop()

    def _outputs(self, logits: Tensor) -> Outputs:
        if not self._taps:
            return Outputs(logits)
        tensors = self._record.take()
        embedding = as_rows(tensors["embedding"]) if self.embedding else None
        features = {name: tensors[name] for name in self.names}
        distillation = tuple(self._classes(tensors[path]) for path in self.heads)
        return Outputs(logits, features, embedding, distillation=distillation)

    def _classes(self, output: Any) -> Tensor:
        """The logits of the data set's classes in what the network returned."""
        return logits_of(output) if self.select is None else self.select(output)

    def beside(self, others: Sequence["FeatureExtractor"], images: Tensor) -> list[Outputs]:
        """This one's outputs and then those of `others`, from one forward of the network.

        others: of the same network, its constants and its image size.
        """
        for other in others:
            other._record.start()
        try:
            own: Outputs = self(images)
            return [own, *(other._outputs(own.logits) for other in others)]
        finally:
            for other in others:
                other._record.stop()

    @property
    def places(self) -> list[str]:
        """The module paths that are read (`PATH` or `PATH:in`)."""
        return list(self._taps.values())

    def reattach(self) -> None:
        """Set the hooks anew, after modules of the network were replaced."""
        for handle in self._handles:
            handle.remove()
        self._handles = attach(self.network, self._taps, self._record)

    def close(self) -> None:
        """Remove the hooks; afterwards only the logits are returned."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._taps = [], {}
        self.names, self.embedding, self.heads = (), False, ()


def distillation_heads(network: nn.Module) -> tuple[str, ...]:
    """The paths of the classifiers that only a teacher trains; none for most networks."""
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
    """An embedding as `[B, D]`; of a map `[B, D, H, W]` (1x1-convolution classifier) the mean."""
    if embedding.dim() == 4:
        return embedding.mean((2, 3))
    return embedding.flatten(1)


def unknown_tap(who: str, name: str, paths: Mapping[str, str]) -> ConfigError:
    """The error for a tap that does not exist; it lists those that do."""
    modules = sorted(getattr(paths, "modules", ()))
    known = ", ".join(paths) or "no named taps"
    hint = did_you_mean(name, [*paths, *modules])
    also = f", and any module path such as {_deepest(modules)}" if modules else ""
    return ConfigError(f"The {who} has no tap '{name}': it has {known}{also}.{hint}")


def _resolve(
    network: nn.Module, names: Sequence[str], paths: Mapping[str, str] | None
) -> dict[str, str]:
    """Name → module path of the taps to read."""
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


def _some(names: Sequence[str], limit: int = 12) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
