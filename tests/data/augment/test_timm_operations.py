"""Each operation of `timm_randaugment` equals timm's function, image by image."""

import numpy as np
import pytest
import torch
from data.augment.pictures import images
from PIL import Image
from torch import Tensor

from kdrun.config.augment import AugmentConfig
from kdrun.data.augment import affine, policies
from kdrun.data.augment.colours import _library
from kdrun.data.augment.policies import INTERPOLATIONS, MOVES, NUMBER, Step, draw, number_count, run
from kdrun.data.augment.random_numbers import uniform
from kdrun.data.loaders.rendering import fill_colour

pytest.importorskip("timm")
_library()
from timm.data import auto_augment, create_transform  # noqa: E402

FILL = (124, 116, 104)
RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SHAPES = [(3, 32, 32), (3, 21, 13), (1, 8, 8)]
LEVELS = torch.tensor([0.4, 3.3, 6.0, 8.5, 9.7, 10.0], dtype=torch.float64)


def to_pil(pixels: Tensor) -> Image.Image:
    values = pixels.permute(1, 2, 0).numpy()
    return Image.fromarray(values[:, :, 0] if len(pixels) == 1 else values)


def to_pixels(image: Image.Image) -> Tensor:
    values = torch.from_numpy(np.array(image))
    return values.unsqueeze(0) if values.dim() == 2 else values.permute(2, 0, 1)


def timms(title: str, argument: float | None, interpolation: str, pixels: Tensor) -> Tensor:
    fill = FILL if len(pixels) == 3 else FILL[0]
    arguments = () if argument is None else (argument,)
    function = auto_augment.NAME_TO_OP[title]
    changed = function(to_pil(pixels), *arguments, fillcolor=fill, resample=RESAMPLE[interpolation])
    return to_pixels(changed)


def differences(name: str, title: str, shape: tuple[int, ...], sign: int, kind: str) -> Tensor:
    """|ours - timm's| for images of `shape` at several levels."""
    size = (shape[1], shape[2])
    pixels = images(shape, len(LEVELS))
    strengths = policies.timm_strengths(LEVELS / 10, size).get(name)
    ours = torch.zeros_like(LEVELS) if strengths is None else sign * strengths
    if name in policies.FACTORS:
        ours = 1 + ours
    number = policies.TIMM_OPERATIONS[NUMBER[name]][INTERPOLATIONS.index(kind)]
    step = Step(torch.full((len(LEVELS),), number), ours, FILL[: shape[0]])
    changed = run(pixels.clone(), [step])
    scale = {"translate_x": size[1], "translate_y": size[0], "solarize": 1 / 255}.get(name, 1)
    whole = name in ("posterize", "solarize", "solarize_add")
    expected = []
    for image, strength in zip(pixels, ours.tolist(), strict=True):
        argument = round(strength / scale) if whole else strength / scale
        if name == "posterize" and argument == 0:  # newer versions of PIL refuse to keep no bit
            expected.append(torch.zeros_like(image))
            continue
        expected.append(timms(title, None if strengths is None else argument, kind, image))
    return (changed.int() - torch.stack(expected).int()).abs()


TITLES = dict(zip(policies.TIMM_SPACE, auto_augment._RAND_INCREASING_TRANSFORMS, strict=True))


@pytest.fixture(params=[affine.moved, affine.moved_together])
def moves(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images one by one, as on a CPU, and together, as on a GPU."""
    monkeypatch.setattr(affine, "moved", request.param)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", MOVES)
def test_a_move_equals_timms(name: str, shape: tuple[int, ...], moves: None) -> None:
    for kind in INTERPOLATIONS:
        for sign in (1, -1):
            difference = differences(name, TITLES[name], shape, sign, kind)
            assert int(difference.max()) == 0, (kind, sign)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [name for name in policies.TIMM_SPACE if name not in MOVES])
def test_a_change_of_colour_equals_timms(name: str, shape: tuple[int, ...]) -> None:
    if name == "color" and shape[0] == 1:
        return  # PIL's images of one channel have no colour
    for sign in (1, -1) if name in policies.FACTORS else (1,):
        difference = differences(name, TITLES[name], shape, sign, "bilinear")
        assert int(difference.max()) == 0, sign


@pytest.mark.parametrize("kind", INTERPOLATIONS)
@pytest.mark.parametrize("name", MOVES)
def test_a_photographs_moves_equal_timms(name: str, kind: str, moves: None) -> None:
    assert int(differences(name, TITLES[name], (3, 224, 224), -1, kind).max()) == 0


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "random"])
def test_fill_and_interpolation_are_those_of_create_transform(interpolation: str) -> None:
    mean = (0.507, 0.4865, 0.4409)
    transform = create_transform(
        32,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation=interpolation,
        mean=mean,
    )
    keywords = transform.transforms[2].ops[0].kwargs
    assert fill_colour(mean) == keywords["fillcolor"]
    kinds = {RESAMPLE[kind] for kind in INTERPOLATIONS}
    expected = kinds if interpolation == "random" else {RESAMPLE[interpolation]}
    resample = keywords["resample"]
    assert expected == (set(resample) if isinstance(resample, tuple) else {resample})

    augment = AugmentConfig(policy="timm_randaugment", interpolation=interpolation)
    draws = uniform(3, ("policy", 0), torch.arange(4000), number_count(augment))
    for step in draw(augment, draws, (32, 32), fill_colour(mean)):
        assert step.fill == fill_colour(mean)
        shares = {
            RESAMPLE[kind]: float((step.operations == NUMBER[f"rotate_{kind}"]).double().mean())
            for kind in INTERPOLATIONS
        }
        assert {kind for kind, share in shares.items() if share} == expected
        assert sum(shares.values()) == pytest.approx(0.5 / 15, abs=0.01)
        assert max(shares.values()) < 0.025 or interpolation != "random"
