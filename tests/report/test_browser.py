"""The page in a real browser: it works by mouse and keyboard, on wide and narrow screens."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from report.hostile import HOSTILE
from report.test_page import PNG

from kdrun.report.content import Report
from kdrun.report.figure_store import Picture, write_album
from kdrun.report.page import write_page

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SCREENS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright: pip install playwright"
    )
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium, or another package manager's")
    with api.sync_playwright() as player:
        # a container has neither a sandbox nor much shared memory
        words = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        program = player.chromium.launch(executable_path=CHROMIUM, args=words)
        yield program
        program.close()


@pytest.fixture
def page_path(
    sweep: Path, make: Callable[..., Path], tmp_path: Path, report_of: Callable[..., Report]
) -> Path:
    """A page of a sweep, an unfinished run, hostile texts and a run with pictures."""
    for word in HOSTILE:
        make(changes={"student.name": word}, val=50.0)
    make(status="failed", outcome={"error": HOSTILE[0]})
    write_album(
        next(sweep.glob("distill/*")), [Picture("p", "A", "B", HOSTILE[1], 900, 300, PNG, PNG)]
    )
    path = tmp_path / "report.html"
    write_page(path, report_of(sweep), ["outputs"])
    return path


@pytest.fixture
def open_page(browser: Any, page_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the page on a screen; a word in the console or a request fails the test at its end."""
    said: list[str] = []
    contexts = []

    def opened(width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url)
                if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
        page.goto(page_path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


@pytest.mark.parametrize(("width", "scheme"), SCREENS)
def test_it_fits_every_screen(open_page: Callable[..., Any], width: int, scheme: str) -> None:
    page = open_page(width, scheme)
    assert page.title() == "kdrun report"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    loaded = page.evaluate("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert loaded == [True]
    drawn = page.evaluate(
        "[...document.querySelectorAll('svg[role=img]')].map(s => s.getBoundingClientRect().width)"
    )
    assert len(drawn) == 5
    assert all(size > 200 for size in drawn)
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg[role=img] text')]"
        ".map(t => t.getBoundingClientRect().height))"
    )
    assert smallest >= 10  # a line of letters of 8 pixels


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_letters_stand_out(open_page: Callable[..., Any], scheme: str) -> None:
    """WCAG's contrast of 4.5 for text, also for the numbers on the cells of the heat maps."""
    page = open_page(1280, scheme)
    low = page.evaluate(
        """() => {
      const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255;
        return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
      const contrast = (a, b) => { const [x, y] = [light(rgb(a)), light(rgb(b))];
        return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05); };
      const found = [];
      for (const cell of document.querySelectorAll("svg g")) {
        const box = cell.querySelector(":scope > rect[fill]");
        if (!box) continue;
        for (const text of cell.querySelectorAll(":scope > text"))
          found.push(contrast(getComputedStyle(text).fill, getComputedStyle(box).fill));
      }
      const back = getComputedStyle(document.body).backgroundColor;
      for (const text of document.querySelectorAll(".quiet, .summary, .notes, td, a"))
        found.push(contrast(getComputedStyle(text).color, back));
      return [Math.min(...found), found.length];
    }"""
    )
    assert low[0] >= 4.5
    assert low[1] > 50


def column(page: Any, number: int) -> list[str]:
    rows = "[...document.querySelectorAll('#main tbody tr')]"
    cells: list[str] = page.evaluate(f"{rows}.map(r => r.cells[{number}].dataset.value)")
    return cells


def head(page: Any, name: str) -> Any:
    return page.locator("#main th", has=page.get_by_role("button", name=name, exact=True))


def test_tables_sort_by_click(open_page: Callable[..., Any]) -> None:
    page = open_page()
    place = page.evaluate(
        "[...document.querySelectorAll('#main th')].findIndex(h => h.textContent.trim()"
        " === 'test top-1 %')"
    )
    name = "test top-1 %"
    page.get_by_role("button", name=name, exact=True).click()
    assert head(page, name).get_attribute("aria-sort") == "descending"
    values = [float(v) for v in column(page, place)]
    assert values == sorted(values, reverse=True)
    page.get_by_role("button", name=name, exact=True).click()
    assert head(page, name).get_attribute("aria-sort") == "ascending"
    assert [float(v) for v in column(page, place)] == sorted(values)
    assert "Sorted by test top-1 %, ascending." in page.get_by_role("status").inner_text()


def test_tables_sort_by_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "T":
            break
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert head(page, "T").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert head(page, "T").get_attribute("aria-sort") == "ascending"
    place = page.evaluate(
        "[...document.querySelectorAll('#main th')].findIndex(h => h.textContent.trim() === 'T')"
    )
    values = [float(v) for v in column(page, place)]
    assert values == sorted(values)


def test_empty_cells_stay_last(open_page: Callable[..., Any]) -> None:
    page = open_page()
    place = page.evaluate(
        "[...document.querySelectorAll('#main th')].findIndex(h => h.textContent.trim() === 'p')"
    )
    for _ in range(2):
        page.get_by_role("button", name="p", exact=True).click()
        values = column(page, place)
        assert "" in values
        assert all(v == "" for v in values[values.index("") :])


def test_a_row_s_number_opens_its_commands(open_page: Callable[..., Any]) -> None:
    page = open_page()
    target = page.locator("#row-3")
    assert target.get_attribute("open") is None
    page.locator("#main a", has_text="3").first.click()
    assert target.get_attribute("open") is not None
    assert "kdrun distill" in target.inner_text()


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_run_says_is_run(
    open_page: Callable[..., Any],
    page_path: Path,
    sweep: Path,
    report_of: Callable[..., Report],
    word: str,
) -> None:
    """The same words in every text of a run's result, configuration, environment and command."""
    run = next(sweep.glob("distill/*"))
    for name in ("result.json", "env.json"):
        values = json.loads((run / name).read_text(encoding="utf-8"))
        (run / name).write_text(json.dumps(_with(values, word)), encoding="utf-8")
    configured = _with(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")), word)
    (run / "config.yaml").write_text(yaml.safe_dump(configured), encoding="utf-8")
    (run / "command.txt").write_text(word, encoding="utf-8")
    write_page(page_path, report_of(sweep), [word])
    page = open_page()
    assert page.title() == "kdrun report"
    assert page.evaluate("[...document.scripts].length") == 1
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    assert " ".join(word.split())[:20] in " ".join(page.inner_text("body").split())


def _with(values: Any, word: str) -> Any:
    """All texts but those that are read as words of kdrun's replaced; keys of groups too."""
    if isinstance(values, dict):
        kept = ("schema", "command", "status", "loss")
        return {key: value if key in kept else _with(value, word) for key, value in values.items()}
    if isinstance(values, list):
        return [_with(value, word) for value in values]
    return word if isinstance(values, str) else values
