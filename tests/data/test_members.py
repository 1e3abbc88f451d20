"""Images inside container files are decoded by the code that decodes files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdrun.data.decoding.image import Form, read_header, read_image
from kdrun.data.tree import Member, open_source
from kdrun.errors import DataError


@dataclass(frozen=True)
class InMemory(Member):
    content: bytes

    def __str__(self) -> str:
        return "some.tar::photo.png"

    def read(self) -> bytes:
        return self.content


def test_a_member_gives_the_pixels_of_its_file(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    member = InMemory(path.read_bytes())
    assert read_header(member) == read_header(str(path))
    decoded = read_image(member, Form((4, 4), 3))
    assert np.array_equal(decoded, pixels.transpose(2, 0, 1))
    assert np.array_equal(decoded, read_image(str(path), Form((4, 4), 3)))


def test_a_broken_member_is_named() -> None:
    with pytest.raises(DataError, match=r"some\.tar::photo\.png cannot be decoded"):
        read_image(InMemory(b"nothing"), Form((4, 4), 3))


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a file"):
        open_source(str(tmp_path))
