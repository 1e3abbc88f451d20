"""docs/losses.md matches the loss classes, the YAML files and the registry of checks."""

from losses.checks import (
    DOCUMENT,
    RECIPES,
    REGISTRY,
    TABLE_END,
    TABLE_START,
    documented,
    recipes_documented,
)

from kdrun.losses.catalogue import entries

COMMAND = "python tests/losses/checks.py"


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.is_file(), f"docs/losses.md is missing; write it with: {COMMAND}"
    same = DOCUMENT.read_text(encoding="utf-8") == documented()
    assert same, f"docs/losses.md is out of date; regenerate it with: {COMMAND}"


def test_the_table_of_mixed_images_is_up_to_date() -> None:
    text = RECIPES.read_text(encoding="utf-8")
    assert text == recipes_documented(), f"docs/recipes.md is out of date: {COMMAND}"
    assert text.count(TABLE_START) == text.count(TABLE_END) == 1
    (refused,) = [line for line in text.splitlines() if "| refused: the loss " in line]
    assert refused.startswith("| `crd` |")


def test_every_loss_has_its_section_and_its_row() -> None:
    text = documented()
    assert set(entries()) == set(REGISTRY)
    for name, entry in entries().items():
        assert f"\n### {name}\n" in text
        assert f"\n| `{name}` |" in text
        assert entry.cls.formula in text
        assert entry.cls.source in text
        for variant in entry.cls.variants:
            assert f"**Variant `{variant}`:**" in text


def test_the_defaults_are_those_of_the_objective() -> None:
    text = documented()
    assert "- **Default:** weight 9; CE weighs 0.1\n" in text  # logit_std
    assert "- **Default:** weight 1, full in epoch 20; CE weighs 1\n" in text  # dkd
    assert "- **Default:** weight 0.9; CE weighs 0.1\n" in text  # kd
