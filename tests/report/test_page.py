"""The page as text: what is in it, and that nothing gets out of its place."""

import base64
import hashlib
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report.hostile import HOSTILE

from kdrun.report.charts.heatmap import TURN, colour, luminance, plane_charts
from kdrun.report.charts.svg import Axis, element, log_ticks, ticks
from kdrun.report.content import Report
from kdrun.report.figures.store import StoredFigure, read_figures, write_figures
from kdrun.report.page import environments, write_page

Make = Callable[..., Path]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)


class Elements(HTMLParser):
    """Names of all elements, their attributes, and all text outside of script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: list[str] = []
        self.skipping = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs
        self.skipping = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.skipping = False

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.text.append(data)


def page_of(report: Report, path: Path, *words: str) -> str:
    write_page(path / "report.html", report, words)
    return (path / "report.html").read_text(encoding="utf-8")


def test_the_page_has_every_part(
    sweep: Path, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    found = Elements(page_of(report_of(sweep), tmp_path, str(sweep)))
    text = " ".join(" ".join(found.text).split())
    for words in (
        "best on validation: T=4 alpha=0.9",
        "verdict: helps",
        "Best validation top-1 % by T and alpha",
        "Test top-1 % by T and alpha",
        "Learning curves",
        "Accuracy against parameters",
        "Accuracy against FLOPs per image",
        "Settings that differ",
        "kdrun distill T=4.0 seed=2",
        "2.13.0",
        f"kdrun report {sweep}",
    ):
        assert words in text, words


def test_the_page_needs_nothing_else(
    sweep: Path, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    html = page_of(report_of(sweep), tmp_path)
    found = Elements(html)
    places = [v or "" for k, v in found.attributes if k in ("src", "href", "srcset", "action")]
    assert all(place.startswith(("#", "data:")) for place in places)
    assert not {"link", "iframe", "object", "embed"} & set(found.names) - {"link"}
    policy = next(v for k, v in found.attributes if v and v.startswith("default-src 'none'"))
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not [k for k, _ in found.attributes if k.startswith("on") or k == "style"]


@pytest.mark.parametrize("word", HOSTILE)
def test_strangers_texts_stay_texts(
    make: Make, outputs: Path, tmp_path: Path, word: str, report_of: Callable[..., Report]
) -> None:
    def page(name: str, place: Path) -> Elements:
        folder = tmp_path / place
        folder.mkdir()
        for T in (1.0, 4.0):
            for alpha in (0.1, 0.9):
                path = make(T=T, alpha=alpha, changes={"student.name": name, "schedule.lr": name})
                (path / "command.txt").write_text(f"kdrun distill student.name={name}")
                (path / "env.json").write_text('{"python": "3"}')
                write_figures(path, [StoredFigure("p", name, name, name, 10, 10, PNG, PNG)])
        make(status="failed", outcome={"error": name}, changes={"teacher.name": name})
        return Elements(page_of(report_of(outputs), folder, name))

    plain, hostile = page("plain", Path("a")), page(word, Path("b"))
    extra = [name for name in set(hostile.names) if name not in plain.names]
    assert not extra
    assert "h1" in plain.names
    assert hostile.names.count("h1") == 1
    assert hostile.names.count("script") == 1
    assert not [k for k, _ in hostile.attributes if k.startswith("on")]
    assert " ".join(word.split()) in " ".join(" ".join(hostile.text).split())


def test_pictures_are_embedded_for_both_screens(
    make: Make, tmp_path: Path, report_of: Callable[..., Report]
) -> None:
    run = make()
    write_figures(run, [StoredFigure("p", "Title", "Caption", "What it shows", 64, 32, PNG, PNG)])
    html = page_of(report_of(run), tmp_path)
    assert html.count("data:image/png;base64,") == 2
    assert 'alt="What it shows"' in html
    assert "prefers-color-scheme: dark" in html


@pytest.mark.parametrize(
    "text", ["{", '{"pictures": [3]}', '{"pictures": [{"name": "../../secret", "title": "t"}]}']
)
def test_a_damaged_album_is_left_out(make: Make, text: str) -> None:
    run = make()
    folder = write_figures(run, [StoredFigure("p", "t", "c", "a", 1, 1, PNG, PNG)])
    assert len(read_figures(run)) == 1
    (folder / "album.json").write_text(text)
    assert read_figures(run) == []
    write_figures(run, [StoredFigure("p", "t", "c", "a", 1, 1, PNG, PNG)])
    (folder / "p-dark.png").write_bytes(b"<svg>")
    assert read_figures(run) == []


def test_a_picture_s_name_is_no_way_out_of_its_folder(make: Make, tmp_path: Path) -> None:
    run = make()
    for theme in ("light", "dark"):
        (run / f"secret-{theme}.png").write_bytes(PNG)
    write_figures(run, [])
    entry = '{"name": "../secret", "title": "", "caption": "", "alt": "", "width": 1, "height": 1}'
    (run / "pictures" / "album.json").write_text(f'{{"pictures": [{entry}]}}')
    assert read_figures(run) == []


def test_heat_maps_say_mean_and_n_of_every_cell(
    sweep: Path, report_of: Callable[..., Report]
) -> None:
    report = report_of(sweep)
    validation, test = plane_charts(report.sections[0].section)
    assert "T=4 alpha=0.9: 96.00 ± 0.00 %, n=3" in validation.drawing
    best = report.grouped.groups[0].test
    assert best is not None
    assert f"T=4 alpha=0.9: {best.mean:.2f}" in test.drawing
    assert test.drawing.count("frame") == 1


def test_a_heat_map_needs_both_to_vary(make: Make, outputs: Path, report_of: Callable) -> None:  # type: ignore[type-arg]
    for T in (1.0, 2.0, 4.0):
        make(T=T)
    assert plane_charts(report_of(outputs).sections[0].section) == []


def test_a_missing_cell_is_drawn_empty(make: Make, outputs: Path, report_of: Callable) -> None:  # type: ignore[type-arg]
    for T, alpha in ((1.0, 0.1), (1.0, 0.9), (4.0, 0.1)):
        make(T=T, alpha=alpha)
    chart = plane_charts(report_of(outputs).sections[0].section)[0]
    assert "T=4 alpha=0.9: no finished run" in chart.drawing


def test_a_wide_heat_map_keeps_its_letters_readable(
    make: Make, outputs: Path, report_of: Callable[..., Report]
) -> None:
    for T in range(1, 11):
        for alpha in (0.1, 0.9):
            make(T=float(T), alpha=alpha)
    drawing = plane_charts(report_of(outputs).sections[0].section)[0].drawing
    assert 'class="wide"' in drawing
    assert f'width="{42 + 10 * 78}"' in drawing


def test_letters_stand_out_on_every_colour_of_the_scale() -> None:
    for step in range(101):
        behind = luminance(*colour(step / 100))
        ink = 1.0 if behind < TURN else 0.0
        light, low = max(ink, behind), min(ink, behind)
        assert (light + 0.05) / (low + 0.05) >= 4.5, step


def test_machines_are_told_apart(make: Make, outputs: Path, report_of: Callable) -> None:  # type: ignore[type-arg]
    make()
    make(seed=1)
    (make(seed=2) / "env.json").write_text('{"python": "3.13.0"}')
    found = environments(report_of(outputs).collected.runs)
    assert [count for _, count in found] == [2, 1]
    assert ("python", "3.13.0") in found[1][0]


def test_svg_is_escaped_and_axes_are_exact() -> None:
    assert element("text", "<b>", class_='"x') == '<text class="&#34;x">&lt;b&gt;</text>'
    axis = Axis(10, 1000, 0, 100, log=True)
    assert axis.at(100) == pytest.approx(50)
    assert Axis(0, 10, 100, 0).at(2.5) == pytest.approx(75)
    assert Axis(3, 3, 0, 100).at(3) == 50
    assert ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert ticks(91.3, 92.1) == [91.4, 91.6, 91.8, 92.0]
    assert log_ticks(5, 300) == [5, 10, 20, 50, 100, 200]
