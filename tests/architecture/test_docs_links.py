"""Links between the documentation pages: files, headings and repository paths exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
FENCED = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
PLACEHOLDERS = re.compile(r"NAME|\*")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_repository_paths_exist(page: Path) -> None:
    folders = "kdrun|configs|tests|benchmarks|docs"
    for path in re.findall(rf"`((?:{folders})/[\w/.*-]+)`", page.read_text()):
        if not PLACEHOLDERS.search(path):
            assert (ROOT / path).exists(), path


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for page in [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")]:
        assert page.name == "README.md" or f"]({page.name})" in index, page.name
