"""A distillation loss as a torch criterion: tensors in, one scalar out.

    kd = KD(temperature=4.0)
    loss = kd(student_logits, teacher_logits)              # both [B, C]

    hints = FitNet().build_for(student_map, teacher_map)   # tensors, or shapes (B, C, H, W)
    optimizer = SGD([*student.parameters(), *hints.parameters()], lr=0.05)
    loss = hints(student_map, teacher_map)

The arguments depend on what the loss reads:

- logits: `loss(student_logits, teacher_logits[, targets])`, `[B, C]` and int64 `[B]`;
- feature maps: one tensor or a list, a pair per tap: maps `[B, C, H, W]`, tokens `[B, N, D]` or
  units `[B, D]`; if the loss also reads the embedding, it is the last item of the list;
- embeddings: `[B, D]`, the input of the classifier (a map `[B, D, H, W]` is average-pooled).

Adapters are built by `build_for` or on the first call, on the device of the student's tensor, with
torch's global random number generator. As with torch's lazy modules, build before creating the
optimiser or wrapping the loss in DistributedDataParallel. The state dict contains the shapes, so it
loads into a new, unbuilt instance. Losses are computed in float32, outside autocast, without
gradients to the teacher.

Source and formula of each loss are in its class. `kdrun distill` runs the same `forward`.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn

from kdrun.errors import ShapeError
from kdrun.losses.context import LossContext, NoNetwork, TapRequest
from kdrun.types import Batch, Outputs

if TYPE_CHECKING:
    from kdrun.losses.base import DistillationLoss

Shape = tuple[int, ...]
Tensors = Tensor | Sequence[Tensor]
Examples = Tensors | Shape | Sequence[Shape]
Build = Callable[[Outputs, Outputs], None]

STUDENT, TEACHER = "student", "teacher"
BUILT_FOR = "built_for"


class Criterion(nn.Module):
    """Base of `DistillationLoss` that makes a loss callable with plain tensors.

    crosses_pairs: compares every student tap with every teacher tap, so their numbers may differ.
    fixed_sizes: the adapters only accept the height and width they were built for.
    """

    crosses_pairs: ClassVar[bool] = False
    fixed_sizes: ClassVar[bool] = False
    taps: list[TapRequest]
    pairs: list[tuple[str, str]]
    _built = False
    _step_pending = False
    _shapes: tuple[tuple[Shape, ...], tuple[Shape, ...]] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Called with `(Outputs, Outputs, Batch)`, or with tensors as in `value`."""
        if "batch" in kwargs or (args and isinstance(args[0], Outputs)):
            return cast(Tensor, super().__call__(*args, **kwargs))
        return self.value(*args, **kwargs)

    def value(
        self,
        student: Tensors,
        teacher: Tensors | None = None,
        targets: Tensor | None = None,
        indices: Tensor | None = None,
        *,
        student_logits: Tensor | None = None,
        teacher_logits: Tensor | None = None,
    ) -> Tensor:
        """The loss of one batch of B images, a scalar.

        student, teacher: logits, features or embeddings; see the module's docstring.
        targets: `[B]` int64 class numbers, for losses that read labels.
        indices: `[B]` int64 positions of the images in the training set, for losses with a memory.
        student_logits, teacher_logits: `[B, C]`, for losses that read features and logits.
        Raises ShapeError (a ConfigError and ValueError) for invalid shapes.
        """
        logits = (student_logits, teacher_logits)
        device = self._tensors(student, STUDENT)[0].device
        with torch.autocast(device.type, enabled=False):
            inputs = self._inputs(student, teacher, targets, indices, logits)
            self._prepare(inputs[0], inputs[1])
            self._finish_step()
            self._step_pending = self.training and torch.is_grad_enabled()
            return cast(Tensor, super().__call__(*inputs))

    def pretrain(
        self,
        student: Tensors,
        teacher: Tensors,
        targets: Tensor | None = None,
        indices: Tensor | None = None,
    ) -> Tensor:
        """The scalar to minimise in the pre-training phase, for losses that have one.

        Arguments and errors are those of a call.
        """
        inputs = self._inputs(student, teacher, targets, indices, (None, None))
        with torch.autocast(inputs[0].logits.device.type, enabled=False):
            self._prepare(inputs[0], inputs[1])
            return cast("DistillationLoss", self).pretrain_loss(*inputs)

    def build_for(self, student: Examples, teacher: Examples) -> Self:
        """Build the adapters now; returns the loss.

        student, teacher: as in a call, each as a tensor or its shape with B: `(64, 32, 8, 8)`.
        Given only shapes, a loss that checks whether the teacher's features come from a ReLU
        assumes that they do.
        """
        student_tensors, teacher_tensors = _as_examples(student), _as_examples(teacher)
        size = len(student_tensors[0])
        rows = torch.zeros(size, dtype=torch.int64)
        inputs = self._inputs(student_tensors, teacher_tensors, rows, rows, (None, None))
        self._built = False
        self._prepare(inputs[0], inputs[1])
        return self

    def arrange(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """Convert one network's tensors to `Outputs`; losses with other inputs override this.

        who: `student` or `teacher`. Raises ShapeError.
        """
        loss = cast("DistillationLoss", self)
        tensors = list(tensors)
        if loss.reads_strong_view:
            return self._views(tensors, who)
        if not self.taps and not loss.reads_embedding:
            (logits,) = self.require_count(tensors, 1, who)
            return Outputs(self.require_logits(logits, who))
        embedding = None
        if loss.reads_embedding:
            if self.taps and len(tensors) < 2:
                raise self._mismatch(
                    f"the {who}'s features must be a list of maps with the embedding [B, D] last"
                )
            if not self.taps:
                self.require_count(tensors, 1, who)
            embedding = self.require_embedding(tensors.pop(), who)
        return self.of_features(tensors, who, embedding)

    def _views(self, tensors: Sequence[Tensor], who: str) -> Outputs:
        """Logits of the weak and the strong view."""
        if len(tensors) != 2:
            raise self._mismatch(
                f"the {who}'s logits must be a list of two, [weak view, strong view], each [batch, "
                "classes]"
            )
        weak, strong = (self.require_logits(logits, who) for logits in tensors)
        return Outputs(weak, strong=Outputs(strong))

    def of_features(
        self, tensors: Sequence[Tensor], who: str, embedding: Tensor | None = None
    ) -> Outputs:
        """`Outputs` with features under the names of the taps, and empty logits `[B, 0]`."""
        side = (STUDENT, TEACHER).index(who)
        names = list(dict.fromkeys(pair[side] for pair in self.pairs))
        if not names:
            names = [f"features {number}" for number in range(1, len(tensors) + 1)]
        self.require_count(tensors, len(names), who)
        first = embedding if embedding is not None else tensors[0]
        logits = first.flatten(1)[:, :0]
        return Outputs(logits, dict(zip(names, tensors, strict=True)), embedding)

    def require_count(self, tensors: Sequence[Tensor], count: int, who: str) -> Sequence[Tensor]:
        """Return `tensors`; raises ShapeError unless there are `count`."""
        if len(tensors) != count:
            expected = "one tensor" if count == 1 else f"a list of {count} tensors"
            raise self._mismatch(
                f"the {who}'s {_what(self)} must be {expected}, got {len(tensors)}"
            )
        return tensors

    def require_logits(self, logits: Tensor, who: str) -> Tensor:
        """Return `logits`; raises ShapeError unless they are `[B, C]`."""
        if logits.dim() != 2:
            raise self._mismatch(
                f"the {who}'s logits must be [batch, classes], got {list(logits.shape)}"
            )
        return logits

    def require_embedding(self, embedding: Tensor, who: str) -> Tensor:
        """The embedding `[B, D]`; a map `[B, D, H, W]` is average-pooled. Raises ShapeError."""
        if embedding.dim() == 4:
            return embedding.mean((2, 3))
        if embedding.dim() != 2:
            raise self._mismatch(
                f"the {who}'s embedding must be [batch, width], the input of its classifier, got "
                f"{list(embedding.shape)}"
            )
        return embedding

    def _inputs(
        self,
        student: Any,
        teacher: Any,
        targets: Tensor | None,
        indices: Tensor | None,
        logits: tuple[Tensor | None, Tensor | None],
    ) -> tuple[Outputs, Outputs, Batch]:
        loss = cast("DistillationLoss", self)
        s = self.arrange(self._tensors(student, STUDENT), STUDENT)
        t = s if teacher is None and loss.id == "ce" else None
        t = t or self.arrange(self._tensors(teacher, TEACHER), TEACHER)
        if not self.pairs and (s.features or t.features):
            self._pair(s, t)
        s.logits = s.logits if logits[0] is None else self.require_logits(logits[0], STUDENT)
        t.logits = t.logits if logits[1] is None else self.require_logits(logits[1], TEACHER)
        self._check_batch(s, t)
        size = len(s.logits)
        device = s.logits.device
        self._check_rows(targets, size, loss.reads_labels, "targets", "the classes")
        self._check_rows(
            indices, size, loss.reads_indices, "indices", "positions in the training set"
        )
        if targets is None:
            targets = torch.full((size,), -1, device=device)
        if indices is None:
            indices = torch.full((size,), -1, device=device)
        return s, t.detached(), Batch(s.logits.detach()[:, :0], targets, indices)

    def _tensors(self, value: Any, who: str) -> list[Tensor]:
        tensors = [value] if isinstance(value, Tensor) else value
        if not isinstance(tensors, list | tuple) or not tensors:
            raise self._mismatch(f"the {who}'s {_what(self)} must be a tensor or a list of tensors")
        for tensor in tensors:
            if not isinstance(tensor, Tensor) or tensor.dim() < 2:
                raise self._mismatch(f"the {who}'s {_what(self)} must be tensors [batch, ...]")
        return list(tensors)

    def _pair(self, student: Outputs, teacher: Outputs) -> None:
        """Pair the features in order, or all with all if `crosses_pairs`."""
        s, t = list(student.features), list(teacher.features)
        if self.crosses_pairs:
            self.pairs = [(a, b) for a in s for b in t]
            return
        if len(s) != len(t) and t:
            raise self._mismatch(
                f"student and teacher features are compared in pairs, got {len(s)} from the "
                f"student and {len(t)} from the teacher"
            )
        self.pairs = list(zip(s, t or s, strict=True))

    def _check_batch(self, student: Outputs, teacher: Outputs) -> None:
        """Raise ShapeError for different batch sizes or numbers of classes."""
        s, t = student.logits, teacher.logits
        sizes = {len(tensor) for tensor in (*_all(student), *_all(teacher))}
        if len(sizes) > 1:
            numbers = " and ".join(str(size) for size in sorted(sizes))
            raise self._mismatch(
                f"all tensors must have the same batch size, [batch, ...], got {numbers} images"
            )
        if s.shape[1] and t.shape[1] and s.shape != t.shape:
            raise self._mismatch(
                "student and teacher logits must have the same shape [batch, classes], got "
                f"{list(s.shape)} and {list(t.shape)}"
            )

    def _check_rows(
        self, rows: Tensor | None, size: int, needed: bool, name: str, what: str
    ) -> None:
        if rows is None:
            if needed:
                raise self._mismatch(f"{name} are required: {what} as int64 [{size}]")
            return
        if rows.shape != (size,) or rows.is_floating_point():
            raise self._mismatch(
                f"{name} must be {what} as int64 [{size}], got {list(rows.shape)} of type "
                f"{str(rows.dtype).removeprefix('torch.')}"
            )

    def _prepare(self, student: Outputs, teacher: Outputs) -> None:
        """Build the adapters on the first call; on later calls check that the shapes match."""
        if not self._built:
            _outside_graphs(self._build)(student, teacher)
        elif self._shapes is not None:
            for who, shapes, outputs in zip(
                (STUDENT, TEACHER), self._shapes, (student, teacher), strict=True
            ):
                self._check_shapes(who, shapes, _all(outputs))

    def _check_shapes(self, who: str, shapes: Sequence[Shape], tensors: Sequence[Tensor]) -> None:
        for number, (shape, tensor) in enumerate(zip(shapes, tensors, strict=False), 1):
            same = tensor.dim() == len(shape) and (
                tensor.shape[1:] == shape[1:]
                if self.fixed_sizes or len(shape) != 4
                else tensor.shape[1] == shape[1]
            )
            if not same:
                which = f" {number}" if len(shapes) > 1 else ""
                raise self._mismatch(
                    f"it was built for a {who} tensor{which} of shape {_batched(shape)}, got "
                    f"{list(tensor.shape)}"
                )

    def _build(self, student: Outputs, teacher: Outputs) -> None:
        loss = cast("DistillationLoss", self)
        before = set(self.state_dict())
        first = _all(student)[0]
        size = len(first)
        context = LossContext(
            num_classes=student.logits.shape[1],
            transfer_size=0,
            targets=torch.zeros(0, dtype=torch.int64),
            batch_size=size,
            seed=0,
            student=NoNetwork(self, {}),
            teacher=NoNetwork(self, {}),
        )
        with torch.no_grad():
            loss.build(student.detached(), teacher.detached(), context)
        self._built = True
        if set(self.state_dict()) == before:
            return
        dtype = first.dtype if first.dtype == torch.float64 else None
        self.to(first.device, dtype)
        sides = [_all(student), _all(teacher)]
        self._shapes = tuple(tuple(tuple(t.shape) for t in side) for side in sides)  # type: ignore[assignment]
        rows = _encode(sides).to(first.device)
        self.register_buffer(BUILT_FOR, rows)

    def _finish_step(self) -> None:
        """Call `after_step` once per training step."""
        if self._step_pending:
            cast("DistillationLoss", self).after_step()
            self._step_pending = False

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._finish_step()
        super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Build the adapters from the shapes in the state; checkpoints of runs lack them."""
        key = prefix + BUILT_FOR
        if key in state_dict and not self._built:
            self.build_for(*_decode(state_dict[key]))
        has_buffer = BUILT_FOR in self._buffers
        if has_buffer and key not in state_dict:
            state_dict = {**state_dict, key: self._buffers[BUILT_FOR]}
        elif key in state_dict and not has_buffer:
            state_dict = {name: value for name, value in state_dict.items() if name != key}
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _mismatch(self, problem: str) -> ShapeError:
        return ShapeError(f"{type(self).__name__}: {problem}.")


def _outside_graphs(function: Build) -> Build:
    """Exclude `function` from tracing by torch.compile.

    Not a decorator: `torch.compiler.disable` imports the compiler, which takes 1 to 2 s.
    """
    if "torch._dynamo" not in sys.modules:
        return function
    disabled: Build = torch.compiler.disable(function)
    return disabled


def _what(criterion: Criterion) -> str:
    loss = cast("DistillationLoss", criterion)
    if criterion.taps:
        return "features"
    return "embedding" if loss.reads_embedding else "logits"


def _all(outputs: Outputs) -> list[Tensor]:
    """All tensors of `outputs` in the order of a call, without empty logits."""
    embedding = [] if outputs.embedding is None else [outputs.embedding]
    logits = [outputs.logits] if outputs.logits.shape[1] else []
    strong = [] if outputs.strong is None else [outputs.strong.logits]
    return [*outputs.features.values(), *embedding, *logits, *strong, *outputs.distillation]


def _as_examples(value: Any) -> list[Tensor]:
    """`value` as tensors; shapes become tensors of zeros."""
    if isinstance(value, Tensor):
        return [value]
    if value and all(isinstance(size, int) for size in value):
        return [torch.zeros(tuple(value))]
    return [item if isinstance(item, Tensor) else torch.zeros(tuple(item)) for item in value]


def _encode(sides: Sequence[Sequence[Tensor]]) -> Tensor:
    """One int64 row per tensor: (side, non-negative, number of dimensions, sizes ...)."""
    widest = max(tensor.dim() for side in sides for tensor in side)
    rows = []
    for number, side in enumerate(sides):
        for tensor in side:
            fill = [0] * (widest - tensor.dim())
            rectified = int(bool((tensor >= 0).all()))
            rows.append([number, rectified, tensor.dim(), *tensor.shape, *fill])
    return torch.tensor(rows, dtype=torch.int64)


def _decode(rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Inverse of `_encode`: example tensors (student's, teacher's) that give the same adapters."""
    sides: tuple[list[Tensor], list[Tensor]] = ([], [])
    for side, rectified, dims, *sizes in rows.tolist():
        sides[side].append(torch.full(tuple(sizes[:dims]), 0.0 if rectified else -1.0))
    return sides


def _batched(shape: Shape) -> str:
    return "[" + ", ".join(["batch", *map(str, shape[1:])]) + "]"
