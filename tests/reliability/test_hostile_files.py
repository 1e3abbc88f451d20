"""Files made to run code, to eat memory or to reach outside: refused in a sentence, exit code 2."""

import io
import json
import os
import pickle
import pickletools
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import kdrun as package
from kdrun.cli.main import run
from kdrun.data.decoding.image import LARGEST_PIXELS, Form, read_header, read_image
from kdrun.data.idx import LARGEST_BYTES, read_idx
from kdrun.data.images import StoredImages
from kdrun.data.torchvision_sets import cifar10
from kdrun.engine.checkpoint import read_checkpoint
from kdrun.errors import CheckpointError, ConfigError, DataError
from kdrun.limits import LARGEST_JSON, read_json, read_yaml
from kdrun.models import external
from kdrun.runs.config import read_config
from kdrun.teachers.cache_file import CacheFile
from kdrun.teachers.formats import read_any
from tests.reliability.world import TINY

Typed = Callable[..., str]


class Evil:
    """A pickle of it creates the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.marker), "w")


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """The file that must not be there in the end."""
    path = tmp_path / "marker"
    yield path
    assert not path.exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished")
    before = os.getcwd()
    os.chdir(folder)
    try:
        assert run(["distill", *TINY, "epochs=1"]) == 0
    finally:
        os.chdir(before)
    return next(path.parent for path in folder.glob("outputs/distill/*/*/*/result.json"))


@pytest.fixture
def theirs(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run as it came from somebody: whoever changed it has changed its checksums."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "theirs"
    shutil.copytree(finished, folder)
    (folder / "SHA256SUMS").unlink(missing_ok=True)
    return folder


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Typed:
    """A command that ends in exit code 2 and one sentence."""

    def call(*words: str) -> str:
        capsys.readouterr()
        assert run(list(words)) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert "Traceback" not in said
        return said

    return call


def evil_torch_file(path: Path, marker: Path, legacy: bool = False) -> Path:
    torch.save({"model": Evil(marker)}, path, _use_new_zipfile_serialization=not legacy)
    return path


def set_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


# -- pickles --------------------------------------------------------------------------------------


def test_the_pickle_is_evil(tmp_path: Path) -> None:
    """So that the tests below can fail."""
    pickle.loads(pickle.dumps(Evil(tmp_path / "there"))).close()
    assert (tmp_path / "there").exists()


def test_no_training_state_runs_code(tmp_path: Path, marker: Path) -> None:
    with pytest.raises(CheckpointError, match=r"last\.pt is damaged"):
        read_checkpoint(evil_torch_file(tmp_path / "last.pt", marker))


@pytest.mark.parametrize("legacy", [False, True])
def test_no_published_teacher_runs_code(
    tmp_path: Path, marker: Path, legacy: bool, refused: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = evil_torch_file(tmp_path / "teacher.pth", marker, legacy)
    said = refused("distill", *TINY, f"teacher.checkpoint={path}")
    assert "there are no tensors by name in it, only io.open" in said
    assert not marker.exists()


@pytest.mark.parametrize("name", ["teacher.pt", "teacher.safetensors", "teacher.bin"])
def test_no_bare_pickle_runs_code(tmp_path: Path, marker: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(CheckpointError, match=name):
        read_any(path)


def test_no_array_runs_code(tmp_path: Path, marker: Path) -> None:
    np.save(tmp_path / "train.npy", np.array([Evil(marker)]), allow_pickle=True)
    assert "open" in {str(arg).split()[-1] for _, arg, _ in pickletools.genops(
        (tmp_path / "train.npy").read_bytes()[128:]) if arg is not None}  # fmt: skip
    with pytest.raises(ValueError, match="object"):
        StoredImages(tmp_path / "train.npy")


def test_remembered_outputs_are_numbers(tmp_path: Path, marker: Path) -> None:
    (tmp_path / "outputs").write_bytes(pickle.dumps(Evil(marker)) * 50)
    file = CacheFile(tmp_path / "outputs", 4, 3, "float32")
    _, valid = file.read(np.arange(4))
    assert not valid.any()
    file.close()


def test_torchvision_s_pickles_are_read_only_as_published(tmp_path: Path, marker: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch", "batches.meta"]
    for name in names:
        (folder / name).write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(DataError, match="was not found"):
        cifar10(root=str(tmp_path), download=False)


def test_weights_from_a_library_s_cache_run_no_code(tmp_path: Path, marker: Path) -> None:
    path = evil_torch_file(tmp_path / "resnet18.pth", marker)

    def library(**_: Any) -> Any:
        return torch.load(path, weights_only=False)

    with pytest.raises(ConfigError, match="cannot be downloaded"):
        external._download("resnet18", library)
    assert external.WEIGHTS_ONLY not in os.environ


# -- configurations of others ---------------------------------------------------------------------

EVIL_NET = "open('marker', 'w')\nclass Small: pass\n"


@pytest.fixture
def evil_module(tmp_path: Path, marker: Path) -> str:
    """A module that lies in the current folder, as when an archive was unpacked there."""
    (tmp_path / "evil_net.py").write_text(EVIL_NET)
    return "evil_net.Small"


READERS = (
    ("evaluate", "run=theirs", "ui=quiet"),
    ("export", "run=theirs", "format=safetensors"),
    ("predict", "run=theirs", "theirs/x.png"),
    ("distill", *TINY, "teacher.checkpoint=theirs"),
)


@pytest.mark.parametrize("words", READERS, ids=lambda words: words[0])
@pytest.mark.parametrize("nested", [False, True])
def test_a_card_calls_no_code(
    theirs: Path, evil_module: str, words: tuple[str, ...], nested: bool, refused: Typed
) -> None:
    Image.new("L", (8, 8)).save(theirs / "x.png")
    changes: dict[str, Any] = {"target": evil_module}
    if nested:
        inner = {"student_target": evil_module, "student_kwargs": {}}
        changes = {"target": "kdrun.models.reused_classifier.ReusedClassifier", "kwargs": inner}
    set_json(theirs / "student.json", **changes)
    said = refused(*words)
    assert "student.json calls evil_net.Small" in said
    assert "--trust evil_net" in said


def test_a_card_calls_no_code_in_python(theirs: Path, evil_module: str) -> None:
    set_json(theirs / "student.json", target=evil_module)
    with pytest.raises(ConfigError, match="--trust evil_net"):
        package.load(theirs)


def test_a_card_s_data_set_calls_no_code(theirs: Path, evil_module: str, refused: Typed) -> None:
    extra = json.loads((theirs / "student.json").read_text())["extra"]
    extra["dataset"] = {**extra["dataset"], "_target_": "os.system", "command": "touch marker"}
    set_json(theirs / "student.json", extra=extra)
    assert "os.system" in refused("evaluate", "run=theirs", "ui=quiet")
    assert run(["evaluate", "run=theirs", "ui=quiet", *TINY[:5]]) == 0  # not its own data


@pytest.mark.parametrize("group", ["student", "dataset", "scheme", "teacher"])
def test_a_run_that_goes_on_calls_no_code(
    theirs: Path, evil_module: str, group: str, refused: Typed
) -> None:
    set_json(theirs / "result.json", status="interrupted")
    path = theirs / "config.yaml"
    values = yaml.safe_load(path.read_text())
    values[group]["_target_"] = evil_module
    path.write_text(yaml.safe_dump(values))
    before = {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()}
    assert "config.yaml calls evil_net.Small" in refused("resume", "theirs")
    assert before == {file: file.read_bytes() for file in theirs.rglob("*") if file.is_file()}
    assert not (theirs.parent / "marker").exists()


def test_trusted_code_is_called(theirs: Path, tmp_path: Path, refused: Typed) -> None:
    (tmp_path / "good_net.py").write_text("from kdrun.models.cnn import ConvNet as Small\n")
    set_json(theirs / "student.json", target="good_net.Small")
    assert "--trust good_net" in refused("evaluate", "run=theirs", "ui=quiet")
    assert run(["evaluate", "run=theirs", "ui=quiet", "--trust", "good_net"]) == 0
    assert package.load(theirs, trust=["good_net"]).classes


# -- files that reach outside ---------------------------------------------------------------------


def test_a_run_with_links_does_not_go_on(theirs: Path, tmp_path: Path, refused: Typed) -> None:
    set_json(theirs / "result.json", status="interrupted")
    (tmp_path / "precious").write_text("mine")
    (theirs / "run.log").unlink()
    (theirs / "run.log").symlink_to(tmp_path / "precious")
    assert "run.log is a link" in refused("resume", "theirs")
    assert (tmp_path / "precious").read_text() == "mine"


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(ValueError, match="not a file"):
            read_json(tmp_path / f"{name}.json")
    with pytest.raises(DataError, match="not a file"):
        read_image(str(tmp_path / "pipe.json"), Form((4, 4), 1))


# -- sizes ----------------------------------------------------------------------------------------


def test_json_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for text in ("[" * 100_000, "[" * 60 + "]" * 60, "9" * 10_000, b"\xff\xfe{}"):
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ValueError, match=r"."):
            read_json(path)
    with open(path, "wb") as file:
        file.truncate(LARGEST_JSON + 1)
    with pytest.raises(ValueError, match="larger than 16 MiB"):
        read_json(path)


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    "text", [LAUGHS, "[" * 5000, "- " * 500, "a: !!python/name:os.system", "a: !!timestamp x"]
)
def test_yaml_is_bounded_and_plain(theirs: Path, text: str, refused: Typed) -> None:
    (theirs / "config.yaml").write_text(text)
    set_json(theirs / "result.json", status="interrupted")
    assert "config.yaml" in refused("resume", "theirs")
    with pytest.raises(ValueError, match=r"."):
        read_yaml(theirs / "config.yaml")
    assert run(["report", "theirs"]) == 0


def test_a_run_s_configuration_is_resolved(theirs: Path) -> None:
    (theirs / "config.yaml").write_text('a: "${b}${b}"\nb: "${oc.env:HOME}"\n')
    with pytest.raises(ConfigError, match="not a plain value"):
        read_config(theirs, lambda cfg: cfg)


def test_a_state_that_unfolds_is_refused_unread(tmp_path: Path) -> None:
    """Of a thousand times its size; PyTorch itself never packs."""
    path = tmp_path / "last.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("last/data.pkl", b"\0" * 50_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(CheckpointError, match="is compressed, so kdrun did not write it"):
        read_checkpoint(path)


def test_safetensors_headers_are_checked(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensor = '"dtype":"F32","shape":[4]'
    same = f'{tensor},"data_offsets":[0,16]'
    for head, size in (
        ("{}", 2**62),
        (f'{{"a":{{{tensor},"data_offsets":[0,{2**40}]}}}}', None),
        (f'{{"a":{{{tensor},"data_offsets":[16,0]}}}}', None),
        (f'{{"a":{{"dtype":"F32","shape":[{2**62},{2**62}],"data_offsets":[0,16]}}}}', None),
        (f'{{"a":{{{same}}},"b":{{{same}}}}}', None),
        ("[" * 5000, None),
    ):
        length = len(head) if size is None else size
        path.write_bytes(length.to_bytes(8, "little") + head.encode() + bytes(16))
        with pytest.raises(CheckpointError, match=r"x\.safetensors cannot be read"):
            read_any(path)


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that says it has side × side pixels."""
    out = io.BytesIO()
    Image.new("1", (8, 8)).save(out, "PNG")
    raw = bytearray(out.getvalue())
    import zlib

    raw[16:24] = side.to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    return bytes(raw)


@pytest.mark.parametrize("side", [10_001, 20_000, 2**31 - 1])
def test_pictures_that_unfold_are_refused(tmp_path: Path, side: int) -> None:
    assert side**2 > LARGEST_PIXELS
    path = tmp_path / "x.png"
    path.write_bytes(bomb(side))
    for read in (lambda: read_header(str(path)), lambda: read_image(str(path), Form((8, 8), 1))):
        with pytest.raises(DataError, match=r"x\.png (is too large|cannot be decoded)"):
            read()


def test_no_picture_starts_another_program(tmp_path: Path) -> None:
    """PostScript in a file that is called .png would be given to Ghostscript."""
    path = tmp_path / "x.png"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(marker) (w) file\n"
    )
    assert Image.open(path).format == "EPS"
    with pytest.raises(DataError, match="not an image of any known format"):
        read_image(str(path), Form((8, 8), 3))


def test_packed_arrays_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gzip

    monkeypatch.setattr("kdrun.data.idx.LARGEST_BYTES", 10_000)
    assert LARGEST_BYTES > 10_000
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes(1_000_000)))
    with pytest.raises(DataError, match="holds more than"):
        read_idx(path)
