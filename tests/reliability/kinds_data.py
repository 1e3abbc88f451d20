"""Data that are no data: pictures, image folders, arrays, checkpoints."""

import importlib
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kdrun.data.decoding.formats import image_extensions
from kdrun.data.decoding.image import Form, read_header, read_image
from kdrun.data.idx import read_idx
from kdrun.data.imagefolder import imagefolder
from kdrun.data.images import StoredImages
from kdrun.data.speech import read_wav
from kdrun.engine.checkpoint import read_checkpoint
from kdrun.errors import KdrunError
from kdrun.teachers.formats import read_any
from tests.reliability import spoil
from tests.reliability.case import Case, Failed
from tests.reliability.world import FORMATS, copied, picture


def pictures(case: Case) -> str:
    """A picture's file, spoilt: read as the form asks, or refused with its name."""
    rng = case.rng
    kind = rng.choice(FORMATS)
    raw = picture(kind, rng.randrange(50), (rng.choice((1, 2, 9, 40)), rng.choice((1, 3, 8))))
    path = case.folder / f"x{rng.choice(sorted(image_extensions()))}"
    path.write_bytes(spoil.content(raw, rng) if rng.random() < 0.9 else raw)
    form = Form((rng.choice((1, 5, 8)), rng.choice((1, 8, 11))), rng.choice((1, 3)))
    case.tell(f"{kind} as {path.name}, {path.read_bytes()[:60]!r}")
    return _named(path, lambda: _check_picture(path, form))


def _check_picture(path: Path, form: Form) -> None:
    header = read_header(str(path))
    pixels = read_image(str(path), form)
    if pixels.shape != (form.channels, *form.size) or pixels.dtype != np.uint8:
        raise Failed(f"{pixels.shape} {pixels.dtype} instead of {form}")
    if min(header.size) < 1:
        raise Failed(f"a size of {header.size}")


def _named(path: Path, read: Any) -> str:
    """`read` ends well, or with an error that names the file."""
    try:
        read()
    except KdrunError as error:
        if path.name not in str(error) or error.exit_code != 2:
            raise Failed(f"the error does not name {path.name}: {error}") from error
        return "refused"
    return "read"


def trees(case: Case) -> str:
    """An image folder with something wrong in it."""
    rng = case.rng
    root = copied(case.world.photos, case.folder / "photos")
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = sorted(path for path in root.rglob("*") if not path.is_symlink())
        if not places:
            break
        _spoil_tree(rng.choice(places), case)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    try:
        raw = imagefolder(
            root=str(root),
            image_size=rng.choice((None, 4, [5, 6])),
            channels=rng.choice((None, 1, 3)),
            cache=rng.random() < 0.5,
            cache_root=case.folder / "cache",
        )
    except KdrunError as error:
        case.tell(error)
        ended = "refused"
    else:
        ended = "read"
        present = [split for split in (raw.train, raw.val, raw.test) if split is not None]
        listed = sum(len(split) for split in present)
        real = sum(1 for path in before if path.suffix.lower() in image_extensions())
        if listed > real:
            raise Failed(f"{listed} images read of {real}")
        try:
            for split in present:
                split.in_memory()
        except KdrunError as error:
            case.tell(error)
            ended = "refused when decoded"
    after = {path: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    if before != after:
        raise Failed("the image folder was changed")
    return ended


def _spoil_tree(path: Path, case: Case) -> None:
    rng = case.rng
    how = rng.randrange(9)
    case.tell(f"{how} at {path.relative_to(case.folder)}")
    if how == 0 and path.is_file():
        path.write_bytes(spoil.content(path.read_bytes(), rng))
    elif how == 1:
        to = path.with_name(rng.choice(("train", "val", "VAL", ".x", "x y", "é", "x.png")))
        if not to.exists():
            path.rename(to)
    elif how == 2:
        target = rng.choice((path.parent, path.parent.parent, Path("/etc"), case.world.photos))
        (path.parent / f"link{rng.randrange(3)}").symlink_to(target)
    elif how == 3 and path.is_file():
        path.unlink()
        os.mkfifo(path)
    elif how == 4 and path.is_dir():
        (path / "deep" / "deeper").mkdir(parents=True, exist_ok=True)
    elif how == 5 and path.is_file():
        path.unlink()
    elif how == 6 and path.is_dir():
        (path / "new.png").write_bytes(picture("PNG", 3, (rng.choice((1, 30)), 7)))
    elif how == 7 and path.is_file():
        path.write_bytes(b"")
    elif path.is_dir():
        (path / f"odd\udcff{rng.randrange(9)}.png").write_bytes(picture("PNG"))


def listed(case: Case) -> str:
    """A table, a tar shard or a Parquet file of pictures, spoilt."""
    rng = case.rng
    kind = rng.choice(("table", "table", "webdataset", "parquet"))
    rows = [(f"{name}{number}.png", name) for name in ("cat", "dog") for number in range(6)]
    if kind == "table":
        for number, (name, _) in enumerate(rows):
            (case.folder / name).write_bytes(picture("PNG", number))
        split = rng.random() < 0.5
        lines = [f"{p},{c}" + (f",{'test' if '5' in p else 'train'}" if split else "")
                 for p, c in rows]  # fmt: skip
        path = case.folder / rng.choice(("labels.csv", "labels.tsv", "x y.txt"))
        head = "path,label" + (",split" if split else "")
        path.write_text("\n".join([head, *lines]) + "\n")
        if rng.random() < 0.5:
            cell = rng.choice((*spoil.HOSTILE_TEXTS, "../x.png", '"', "a,b"))
            text = path.read_text().replace(rng.choice(("cat1.png", "cat", "label")), cell, 1)
            path.write_text(text, errors="surrogatepass")
    elif kind == "webdataset":
        path = case.folder / "train-000.tar"
        with tarfile.open(path, "w") as tar:
            for number, (name, label) in enumerate(rows):
                for member, raw in ((name, picture("PNG", number)),
                                    (name.replace(".png", ".cls"), label.encode())):  # fmt: skip
                    info = tarfile.TarInfo(member)
                    info.size = len(raw)
                    tar.addfile(info, io.BytesIO(raw))
    else:
        pyarrow = optional("pyarrow")
        if pyarrow is None:
            return "no pyarrow"
        path = case.folder / "train-00000-of-00001.parquet"
        import pyarrow.parquet as parquet_file

        images = [{"bytes": picture("PNG", n), "path": p} for n, (p, _) in enumerate(rows)]
        table_of = pyarrow.table({"image": images, "label": [c for _, c in rows]})
        parquet_file.write_table(table_of, path)
    if kind != "table" or rng.random() < 0.5:
        path.write_bytes(spoil.content(path.read_bytes(), rng))
    case.tell(f"{kind} {path.name}: {path.read_bytes()[:80]!r}")
    from kdrun.data.parquet import parquet
    from kdrun.data.table import table
    from kdrun.data.webdataset import webdataset

    wheres: dict[str, Any] = {"cache_root": case.folder / "cache", "cache": rng.random() < 0.5}
    try:
        if kind == "table":
            raw = table(file=str(path), **wheres)
        elif kind == "webdataset":
            raw = webdataset(root=str(path), **wheres)
        else:
            raw = parquet(root=str(path), **wheres)
        for split_images in (raw.train, raw.val, raw.test):
            if split_images is not None:
                split_images.in_memory()
    except KdrunError as error:
        case.tell(error)
        if error.exit_code != 2:
            raise Failed(f"exit code {error.exit_code}: {error}") from error
        return "refused"
    return "read"


def optional(name: str) -> Any:
    """An optional module; None where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def arrays(case: Case) -> str:
    """IDX files, recordings, decoded arrays."""
    rng = case.rng
    name = rng.choice(("images.idx", "images.idx.gz", "word.wav", "array.npy"))
    path = case.folder / name
    if name == "array.npy":
        np.save(path, np.zeros((3, 1, 4, 4), dtype=np.uint8))
        raw = path.read_bytes()
    else:
        raw = case.world.files[name].read_bytes()
    path.write_bytes(spoil.content(raw, rng))
    case.tell(f"{name}: {path.read_bytes()[:60]!r}")
    if name == "array.npy":
        try:
            StoredImages(path)
        except (ValueError, OSError):  # what the cache takes for absent
            return "refused"
        return "read"
    return _named(path, lambda: read_wav(path) if name == "word.wav" else read_idx(path))


def checkpoints(case: Case) -> str:
    """Training states, published teachers and weights: equal to the good ones, or refused."""
    rng = case.rng
    begun = case.world.begun
    sources = {
        "last.pt": begun / "checkpoints" / "last.pt",
        "published.pth": case.world.files["published.pth"],
        "legacy.pt": case.world.files["legacy.pt"],
        "student.safetensors": case.world.run / "student.safetensors",
    }
    name = rng.choice(sorted(sources))
    path = copied(sources[name], case.folder / name)
    path.write_bytes(spoil.content(path.read_bytes(), rng))
    with_card = name.endswith(".safetensors") and rng.random() < 0.5
    if with_card:
        copied(case.world.run / "student.json", case.folder / "student.json")
    case.tell(f"{name}, with its card: {with_card}")

    def read() -> None:
        if name == "last.pt":
            found, good = read_checkpoint(path), read_checkpoint(sources[name])
            _check_equal(found, good, "the training state")
        else:
            found = read_any(path).weights
            if with_card:
                _check_equal(found, read_any(sources[name]).weights, "weights with a checksum")

    return _named(path, read)


def _check_equal(found: Any, good: Any, what: str) -> None:
    if _plain(found) != _plain(good):
        raise Failed(f"{what} came out changed")


def _plain(value: Any) -> str:
    """Tensors and containers as text, every number of them."""
    return json.dumps(value, default=_listed, sort_keys=True)


def _listed(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), value.tolist()]
    return repr(value)
