"""Every data set's YAML composes, parses, and fits the signature of its source."""

import inspect
from importlib.resources import files
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from omegaconf import DictConfig

from kdrun.config import build, composition, dump, parse, rules
from kdrun.config.readers import place_name, require_text
from kdrun.config.schema import DatasetConfig
from kdrun.errors import ConfigError

NAMES = sorted(
    entry.name.removesuffix(".yaml")
    for entry in files("kdrun.configs").joinpath("dataset").iterdir()
    if entry.name.endswith(".yaml")
)
FILL = {
    "imagefolder": ["dataset.root=some/photos"],
    "table": ["dataset.file=some/labels.csv"],
    "parquet": ["dataset.root=some/beans"],
    "webdataset": ["dataset.root='some/birds-{000..009}.tar'"],
    "custom": ["dataset._target_=kdrun.data.sources.digits"],
}
NAMED_BY_PLACE = {
    "imagefolder": "photos",
    "table": "labels",
    "parquet": "beans",
    "webdataset": "birds",
}
OFFERED = {"cache_root", "split_seed", "progress", "before_decoding"}


def composed(name: str, *more: str) -> DictConfig:
    composition.register()
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        return compose("distill", [f"dataset={name}", *FILL.get(name, []), *more])


def dataset(name: str, *more: str) -> DatasetConfig:
    config = parse.distill_config(composed(name, *more))
    rules.distill(config)
    return config.dataset


def test_all_data_sets_are_there() -> None:
    assert {"digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "stl10"} <= {*NAMES}
    assert {"dtd", "imagefolder", "synthetic", "custom"} <= {*NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_composes_parses_and_fits_its_source(name: str) -> None:
    config = dataset(name)
    assert config.name == NAMED_BY_PLACE.get(name, name)
    target = build.locate(config.target, "dataset")
    build.check_arguments(target, config.kwargs, "dataset", offered=OFFERED)
    if name == "custom":
        return
    keywords = set(inspect.signature(target).parameters) - OFFERED
    if "num_classes" not in config.kwargs:  # left out while it says nothing
        keywords -= {"num_classes"}
    listed = set(config.kwargs)
    if config.target.startswith(parse.SHIPPED_SOURCES):
        defaults = parse.LATER_SOURCE_ARGUMENTS  # left out while they hold their default
        for key in defaults.keys() & keywords:
            assert inspect.signature(target).parameters[key].default == defaults[key]
            assert key in composed(name).dataset
            listed.add(key)
    assert listed == keywords, "the YAML lists every argument of its source"


@pytest.mark.parametrize("name", NAMES)
def test_opens_with_a_line_that_says_what_it_is(name: str) -> None:
    text = files("kdrun.configs").joinpath("dataset", f"{name}.yaml").read_text()
    assert text.startswith("# ")


def test_cifar_is_augmented_as_in_the_field_and_digits_are_not_mirrored() -> None:
    for name, padding, flip in (
        ("cifar10", 4, True),
        ("cifar100", 4, True),
        ("svhn", 4, False),
        ("mnist", 0, False),
        ("fashion_mnist", 0, False),
        ("digits", 0, False),
    ):
        augment = dataset(name).augment
        assert (augment.crop_padding, augment.flip) == (padding, flip)


def test_published_constants() -> None:
    cifar, mnist = dataset("cifar100"), dataset("mnist")
    assert (cifar.mean, cifar.std) == ([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761])
    assert (mnist.mean, mnist.std) == ([0.1307], [0.3081])


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("imagefolder", "root"),
        ("table", "file"),
        ("parquet", "root"),
        ("webdataset", "root"),
        ("custom", "_target_"),
    ],
)
def test_what_only_the_user_knows_is_asked_for(name: str, key: str) -> None:
    composition.register()
    with initialize_config_module("kdrun.configs", version_base="1.3"):
        cfg = compose("distill", [f"dataset={name}"])
    with pytest.raises(ConfigError, match=rf"dataset\.{key} has no value"):
        parse.distill_config(cfg)


def test_new_settings_are_not_written_while_they_say_nothing() -> None:
    added = {"train_folder", "val_folder", "test_folder", "class_order", "num_classes"}
    plain = dump.dataset_plain(dataset("imagefolder"))
    assert not added & set(plain)
    chosen = dataset(
        "imagefolder", "dataset.class_order=lexicographic", "dataset.train_folder='*/train'"
    )
    plain = dump.dataset_plain(chosen)
    assert (plain["class_order"], plain["train_folder"]) == ("lexicographic", "*/train")
    assert parse.dataset_config(plain).kwargs["class_order"] == "lexicographic"
    assert dump.dataset_plain(dataset("synthetic"))["num_classes"] == 10
    assert dump.dataset_plain(dataset("digits", "dataset.num_classes=10"))["num_classes"] == 10


def test_a_root_that_links_to_itself_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "self").symlink_to(tmp_path / "self")
    assert place_name({"root": str(tmp_path / "self")}) == "self"


@pytest.mark.parametrize("value", ["caf\udce9", ["ok", "caf\udce9"]])
def test_places_that_are_no_text_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.root=.*caf\\udce9.* is not UTF-8: rename"):
        require_text({"root": value})
    with pytest.raises(ConfigError, match="is no path"):
        place_name({"root": "a\0b"})


def test_a_file_of_class_names_is_kept_with_the_run(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("dog\n\ncat\n")
    config = dataset("imagefolder", f"dataset.class_order={path}")
    assert dump.dataset_plain(config)["class_order"] == ["dog", "cat"]
    with pytest.raises(ConfigError, match="Did you mean 'lexicographic'"):
        dataset("imagefolder", "dataset.class_order=lexicografic")
