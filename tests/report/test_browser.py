"""The page in headless Chromium: by mouse and keyboard, on narrow and wide screens."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from report.hostile import HOSTILE
from report.test_page import PNG

from kdrun.csv_tables import read_csv
from kdrun.report.content import Report
from kdrun.report.figures.store import StoredFigure, write_figures
from kdrun.report.files import write_csv
from kdrun.report.page import write_page

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
SCREENS = [(width, scheme) for width in (390, 1280, 1920) for scheme in ("light", "dark")]


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
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        chromium = player.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def page_path(
    sweep: Path, make: Callable[..., Path], tmp_path: Path, report_of: Callable[..., Report]
) -> Path:
    """A page of two schemes, an unfinished run, hostile texts and a run with figures."""
    for word in HOSTILE:
        make(changes={"student.name": word}, val=50.0)
    make(changes={"scheme.name": "online"}, val=60.0)
    make(status="failed", outcome={"error": HOSTILE[0]})
    write_figures(
        next(sweep.glob("distill/*")), [StoredFigure("p", "A", "B", HOSTILE[1], 900, 300, PNG, PNG)]
    )
    path = tmp_path / "report.html"
    report = report_of(sweep)
    write_page(path, report, ["outputs"])
    write_csv(tmp_path / "report.csv", report)
    return path


@pytest.fixture
def open_page(browser: Any, page_path: Path) -> Iterator[Callable[..., Any]]:
    """Open the page on a screen; console output or a request fails the test at its end."""
    unexpected: list[str] = []
    contexts = []

    def opened(width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: unexpected.append(message.text))
        page.on("pageerror", lambda error: unexpected.append(str(error)))
        page.on("request", lambda request: unexpected.append(request.url)
                if not request.url.startswith(("file:", "data:")) else None)  # fmt: skip
        page.goto(page_path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert unexpected == []


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
    assert len(drawn) == 6
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


def place_of(page: Any, name: str) -> int:
    """The position of a column, by its name in the CSV file."""
    found: int = page.evaluate(
        "name => [...document.querySelectorAll('#table-1 thead th')]"
        ".findIndex(h => h.dataset.name === name)",
        name,
    )
    assert found >= 0, name
    return found


def values_of(page: Any, name: str) -> list[str]:
    place = place_of(page, name)
    cells: list[str] = page.evaluate(
        f"[...document.querySelectorAll('#table-1 tbody tr')]"
        f".map(r => r.cells[{place}].dataset.value)"
    )
    return cells


def head(page: Any, name: str) -> Any:
    return page.locator(f'#table-1 th[data-name="{name}"]')


def test_every_number_of_the_csv_is_in_a_table(
    open_page: Callable[..., Any], page_path: Path
) -> None:
    page = open_page()
    tables = page.evaluate(
        """() => Object.fromEntries([...document.querySelectorAll("section[id^=section-]")].map(
        (s) => [s.querySelector("h2").textContent, (() => {
          const table = s.querySelector("table.results");
          const names = [...table.tHead.rows[0].cells].map((h) => h.dataset.name);
          return [...table.tBodies[0].rows].map((row) => Object.fromEntries(
            [...row.cells].map((cell, n) => [names[n], {...cell.dataset}])));
        })()]))"""
    )
    rows = read_csv(page_path.parent / "report.csv")
    assert len({row["experiment"] for row in rows}) == 2
    assert sum(map(len, tables.values())) == len(rows)
    checked = 0
    for experiment, shown in tables.items():
        own = [row for row in rows if row["experiment"] == experiment]
        for row, cells in zip(own, shown, strict=True):
            for name, text in row.items():
                column, _, part = name.rpartition(" ")
                if part in ("std", "n") and column in row:
                    wanted = cells[column].get(part, "") if column in cells else ""
                    assert _number(text) == _number(wanted), name
                elif name in cells:
                    assert _number(text) == _number(cells[name]["value"]), name
                else:  # the same in all rows of the section, or a metric that it does not have
                    assert len({other[name] for other in own}) == 1, name
                    continue
                checked += 1
    assert checked > 100


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return "" if text == "0" else text


def test_tables_sort_by_click(open_page: Callable[..., Any]) -> None:
    page, name = open_page(), "test top-1 %"
    head(page, name).get_by_role("button").click()
    assert head(page, name).get_attribute("aria-sort") == "descending"
    values = [float(v) for v in values_of(page, name)]
    assert values == sorted(values, reverse=True)
    head(page, name).get_by_role("button").click()
    assert head(page, name).get_attribute("aria-sort") == "ascending"
    assert [float(v) for v in values_of(page, name)] == sorted(values)
    assert "Sorted by distilled, ascending." in page.get_by_role("status").inner_text()


def test_tables_sort_by_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page()
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "n":
            break
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert head(page, "n").get_attribute("aria-sort") == "descending"
    page.keyboard.press("Space")
    assert head(page, "n").get_attribute("aria-sort") == "ascending"
    values = [float(v) for v in values_of(page, "n")]
    assert values == sorted(values)


def test_empty_cells_stay_last(open_page: Callable[..., Any]) -> None:
    page = open_page()
    for _ in range(2):
        head(page, "p").get_by_role("button").click()
        values = values_of(page, "p")
        assert "" in values
        assert all(v == "" for v in values[values.index("") :])


def test_a_row_opens_its_commands(open_page: Callable[..., Any]) -> None:
    page = open_page()
    target = page.locator("#row-1-3")
    assert target.get_attribute("open") is None
    page.locator("#table-1 tbody a").nth(2).click()
    assert target.get_attribute("open") is not None
    assert target.is_visible()
    assert "kdrun distill" in target.inner_text()


@pytest.mark.parametrize("word", HOSTILE, ids=range(len(HOSTILE)))
def test_texts_of_runs_are_never_executed(
    open_page: Callable[..., Any],
    page_path: Path,
    sweep: Path,
    report_of: Callable[..., Report],
    word: str,
) -> None:
    """With the same text in a run's result, configuration, environment and command."""
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
    """Replace all texts except those that kdrun parses."""
    if isinstance(values, dict):
        kept = ("schema", "command", "status", "loss")
        return {key: value if key in kept else _with(value, word) for key, value in values.items()}
    if isinstance(values, list):
        return [_with(value, word) for value in values]
    return word if isinstance(values, str) else values
