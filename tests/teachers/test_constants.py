"""The constants of weights without a card."""

import pytest

from kdrun.config.schema import TeacherInput
from kdrun.errors import ConfigError
from kdrun.teachers.constants import channels_of, common_constants, constants_of
from kdrun.types import Normalisation

COLOUR = Normalisation((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
GREY = Normalisation((0.1,), (0.4,))


def given(mean: object = None, std: object = None) -> TeacherInput:
    return TeacherInput(mean, std)  # type: ignore[arg-type]


def test_what_is_not_given_is_as_in_the_data_set() -> None:
    assert constants_of(given(), COLOUR, 3, "uint8", "teacher") == COLOUR
    assert constants_of(given(), GREY, 3, "uint8", "teacher") == Normalisation(
        (0.1, 0.1, 0.1), (0.4, 0.4, 0.4)
    )
    with pytest.raises(ConfigError, match="give the constants of the grey images"):
        constants_of(given(), COLOUR, 1, "uint8", "teacher")


def test_one_number_holds_for_all_channels() -> None:
    made = constants_of(given(0.5, (0.1, 0.2, 0.3)), COLOUR, 3, "uint8", "teacher")
    assert made == Normalisation((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        ((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), r"divide by 255, 'teacher\.mean=\[0\.4851,"),
        ((123.7, 116.3, 103.5), (0.2, 0.2, 0.2), "must lie between 0 and 1"),
        ((-0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "must lie between 0 and 1"),
        ((0.5, 0.5, 0.5), (58.4, 57.1, 57.4), "must not be above 1"),
        ((0.5,), (0.5,), "has 1 values, and the teacher takes images of 3 channels"),
    ],
)
def test_other_scales_and_counts_are_refused(mean: object, std: object, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        constants_of(given(mean, std), COLOUR, 3, "uint8", "teacher")


def test_values_that_are_no_pixels_have_any_scale() -> None:
    made = constants_of(given((-3.0,), (12.0,)), GREY, 1, "float32", "teacher")
    assert made == Normalisation((-3.0,), (12.0,))


def test_channels() -> None:
    assert channels_of(TeacherInput(), 5, "teacher") == 5
    assert channels_of(TeacherInput(channels=3), 1, "teacher") == 3
    assert channels_of(TeacherInput(channels=1), 3, "teacher") == 1
    with pytest.raises(ConfigError, match="only grey and colour images"):
        channels_of(TeacherInput(channels=3), 5, "teacher")


@pytest.mark.parametrize("channels", [1, 3])
def test_the_usual_constants_have_the_channels_of_the_images(channels: int) -> None:
    found = common_constants(channels)
    assert {len(one.mean) for one in found.values()} == {channels}
    assert len(found) >= 5


def test_constants_of_scaled_pixels_for_floats_to_255_are_refused() -> None:
    floats = Normalisation((78.0,), (96.0,))
    with pytest.raises(ConfigError, match=r"floats with a std of 96: scale the images"):
        constants_of(given((0.306,), (0.376,)), floats, 1, "float32", "teacher")
    made = constants_of(given((78.0,), (96.0,)), floats, 1, "float32", "teacher")
    assert made == floats
