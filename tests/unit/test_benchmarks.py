"""The plain parts of the benchmarks: options, statistics, tables, pictures, progress."""

from __future__ import annotations

import importlib
import io
import itertools
import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SVG = "{http://www.w3.org/2000/svg}"
# The limit on what is committed.
MAX_PICTURE_BYTES = 60_000


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of benchmarks/ that needs none of what is installed there."""
    monkeypatch.syspath_prepend(BENCHMARKS)

    def load_module(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load_module


def run_program(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / "run.py", *words]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    return subprocess.run(
        [str(word) for word in command],
        env=environment,  # it finds its modules beside itself
        capture_output=True,
        text=True,
        timeout=60,
    )


# Options.


def test_contestants_belong_to_libraries(load: Any) -> None:
    find_family = load("options").find_family
    families = {
        "pycoronet callbacks": "pycoronet",
        "pycoronet, for line in conn": "pycoronet",
        "Server threads": "pycoronet",
        "cnhttpd.py": "pycoronet",
        "bare C blocks": "c",
        "uvloop Protocol": "uvloop",
        "asyncio StreamReader": "asyncio",
        "gevent, 1": "gevent",
        "ThreadingTCPServer": "threads",
        "libevent by edges": "libevent",
    }
    assert {name: find_family(name) for name in families} == families


def read_settings(options: ModuleType, *words: str) -> Any:
    parser = options.argparse.ArgumentParser()
    options.add_settings(parser, rounds=9, seconds=0.5)
    return options.read_settings(parser, parser.parse_args(words))


def test_everybody_is_measured_unless_peers_are_named(load: Any) -> None:
    options = load("options")
    names = ["pycoronet", "bare C", "gevent", "trio", "uvloop streams"]
    settings = read_settings(options)
    assert (settings.rounds, settings.seconds) == (9, 0.5)
    assert settings.choose(names) == names
    few = read_settings(options, "--peers", "trio, uvloop", "--rounds=2", "--seconds=0.1")
    assert (few.rounds, few.seconds) == (2, 0.1)
    assert few.choose(names) == ["pycoronet", "trio", "uvloop streams"]
    assert read_settings(options, "--peers", "").choose(names) == ["pycoronet"]
    others = read_settings(options, "--peers-only")
    assert others.choose(names) == names[1:]
    assert others.peers_only


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--peers", "gevent,twisted"], "no such peer: twisted"),
        (["--rounds", "0"], "at least 1"),
        (["--seconds", "0"], "more than 0"),
        (["--seconds", "nan"], "more than 0"),
        (["--seconds", "inf"], "finite"),
        (["--peers-only", "--peers", ""], "leaves nobody"),
    ],
)
def test_settings_that_make_no_sense_are_told(
    load: Any, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(load("options"), *words)
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_test_that_does_not_exist_is_told_before_anything_is_built() -> None:
    ended = run_program("--only", "echo,ecko")
    assert ended.returncode == 2
    assert "no such test: ecko (there are echo, lines, pipelining," in ended.stderr


# Statistics.


def test_the_middle_half_of_rounds(load: Any) -> None:
    figures = load("figures")
    assert figures.summarise([4.0, 1.0, 2.0, 3.0, 100.0]) == figures.Spread(3.0, 1.5, 52.0)
    assert figures.summarise([4.0, 1.0]) == figures.Spread(2.5, 1.0, 4.0)
    assert figures.summarise([4.0]) == figures.Spread(4.0, 4.0, 4.0)
    assert figures.format_spread([4.0, 1.0, 2.0, 3.0, 100.0]) == "3.00 (1.50–52.00)"
    assert figures.format_spread([4.0, 1.0]) == "2.50"


def test_a_figure_above_its_limit_is_short(load: Any) -> None:
    judge = load("report").judge
    assert judge(1.0, 1.0, 0.5) == ["1.00", "1", "0.5"]
    assert judge(1.01, 1.0) == ["1.01 **short**", "1", ""]
    assert judge(None, 1.0) == ["", "", ""]


# Tables.


def make_tables(load: Any) -> list[Any]:
    """Return one with bars, one with groups of bars, one with curves and one with nothing."""
    report, chart = load("report"), load("figures").Chart.of_rounds
    bars = {"pycoronet": [1.0, 2.0, 3.0], "bare <C>": [1.0], "gevent": [10.0, 12.0, 11.0]}
    curves = {
        number: {"pycoronet": [number], "trio": [2 * number + 0.1], "gevent": [2 * number]}
        for number in (1, 10, 15000)
    }
    return [
        report.Table(
            "Echo & more", ["a", "b"], [["x", "1"]], bars, chart("µs", {"": bars}), "", "e"
        ),
        report.Table(
            "Two", ["a"], [["x"]], bars, chart("µs", {"1 task": bars, "2": bars}), "", "t"
        ),
        report.Table("Growth", ["a"], [["x"]], {}, chart("µs", curves, "connections"), "", "g"),
        report.skipped("HTTP", "wrk is not installed"),
    ]


ABOUT = {"date": "2026-11-22", "commit": "123456", "rounds": "3 of 0.1 s"}


def test_a_run_comes_back_from_its_file(load: Any, tmp_path: Path) -> None:
    report = load("report")
    tables = make_tables(load)
    first = report.write_json(tables, ABOUT, tmp_path)
    assert first.name == "2026-11-22-001.json"
    assert report.read_json(first) == (tables, ABOUT)
    content = json.loads(first.read_text("utf-8"))
    assert content["tests"][0]["rounds"]["pycoronet"] == [1.0, 2.0, 3.0]
    assert content["tests"][0]["chart"]["groups"][""]["gevent"]["median"] == 11.0


def test_no_run_is_written_over(load: Any, tmp_path: Path) -> None:
    report = load("report")
    names = [report.write_json([], ABOUT, tmp_path) for _ in range(3)]
    names[0].unlink()
    assert report.write_json([], ABOUT, tmp_path).name == "2026-11-22-004.json"


def test_tables_stand_between_the_marks_of_a_page(load: Any, tmp_path: Path) -> None:
    report = load("report")
    page = tmp_path / "README.md"
    page.write_text(
        "before\n<!-- run.py --markdown writes from here -->\nold\n<!-- to here -->\nafter\n"
    )
    report.write_markdown(make_tables(load), ABOUT, page=page)
    text = page.read_text()
    assert text.startswith("before\n<!-- run.py --markdown writes from here -->\n\n- date: 2026-")
    assert text.endswith("skipped: wrk is not installed\n\n<!-- to here -->\nafter\n")
    assert "old" not in text
    assert (
        "**Echo & more**\n\n![Echo & more](pictures/e.svg)\n\n| a | b |\n| --- | ---: |\n" in text
    )
    assert "pictures/.svg" not in text
    with pytest.raises(ValueError, match=r"no place for the tables of layers\.py"):
        report.write_markdown([], ABOUT, "layers.py", page)
    assert page.read_text() == text


# Pictures.


def draw_all(load: Any, folder: Path) -> dict[str, ElementTree.Element]:
    paths = load("report").write_pictures(make_tables(load), ABOUT, folder)
    return {path.stem: ElementTree.fromstring(path.read_text("utf-8")) for path in paths}


def list_texts(picture: ElementTree.Element) -> list[str | None]:
    return [each.text for each in picture.iter(SVG + "text")]


def test_a_table_with_figures_has_a_picture(load: Any, tmp_path: Path) -> None:
    pictures = draw_all(load, tmp_path)
    assert list(pictures) == ["e", "t", "g"]
    for picture, title in zip(pictures.values(), ["Echo & more", "Two", "Growth"], strict=True):
        title_element = picture.find(SVG + "title")
        assert title_element is not None
        assert title_element.text == title == picture.get("aria-label")
        assert "2026-11-22, 123456" in str(list_texts(picture)[-1])


def test_bars_are_as_long_as_their_medians_the_shortest_first(load: Any, tmp_path: Path) -> None:
    picture = draw_all(load, tmp_path)["e"]
    widths = [float(each.get("width", "")) for each in picture.iter(SVG + "rect")]
    assert [round(each / widths[0], 1) for each in widths] == [1.0, 2.0, 11.0]
    assert list_texts(picture)[2:8] == ["bare <C>", "1.00", "pycoronet", "2.00", "gevent", "11.0"]
    fills = [each.get("fill") for each in picture.iter(SVG + "rect")]
    assert fills[0] == fills[2] != fills[1]


def test_nothing_is_drawn_outside_a_picture(load: Any, tmp_path: Path) -> None:
    for picture in draw_all(load, tmp_path).values():
        width, height = (float(picture.get(name, "")) for name in ("width", "height"))
        for bar in picture.iter(SVG + "rect"):
            assert float(bar.get("x", "")) + float(bar.get("width", "")) < width
        for element in picture.iter():
            for x, y in (("x", "y"), ("cx", "cy")):
                assert 0 <= float(element.get(x, "0")) <= width
                assert 0 <= float(element.get(y, "0")) <= height


def test_a_spread_beyond_all_bars_is_cut_off(load: Any) -> None:
    figures, pictures = load("figures"), load("pictures")
    wild = figures.Spread(10.0, 5.0, 1000.0)
    assert pictures.choose_bar_scale([wild, figures.Spread(8.0, 8.0, 8.0)]) == 12.5
    assert pictures.choose_bar_scale([figures.Spread(0.0, 0.0, 0.0)]) == 1.0


def test_groups_have_headings(load: Any, tmp_path: Path) -> None:
    texts = list_texts(draw_all(load, tmp_path)["t"])
    assert texts.index("1 task") < texts.index("pycoronet") < texts.index("2")
    assert texts.count("pycoronet") == 2


def test_groups_are_to_one_scale_unless_each_has_its_own(load: Any) -> None:
    figures, pictures = load("figures"), load("pictures")
    groups = {"small": {"gevent": [1.0]}, "large": {"gevent": [100.0]}}
    for own_scales, proportion in ((False, 100), (True, 1)):
        chart = figures.Chart.of_rounds("ns", groups, own_scales=own_scales)
        picture = ElementTree.fromstring(pictures.draw("Title", chart, ""))
        small, large = (float(each.get("width", "")) for each in picture.iter(SVG + "rect"))
        assert large / small == pytest.approx(proportion, rel=0.02)


def test_curves_go_from_the_first_place_to_the_last(load: Any, tmp_path: Path) -> None:
    picture = draw_all(load, tmp_path)["g"]
    texts = list_texts(picture)
    assert {"1", "10", "15,000", "connections"} <= set(texts)
    places = [float(each.get("cx", "")) for each in picture.iter(SVG + "circle")]
    assert places == places[:3] * 3
    # Tenfold is less than fifteen-hundredfold: the axis is a logarithm.
    first, second, last = places[:3]
    assert 0.2 < (second - first) / (last - first) < 0.3
    names = [each for each in picture.iter(SVG + "text") if each.text in ("trio", "gevent")]
    heights = [float(each.get("y", "")) for each in names]
    assert abs(heights[0] - heights[1]) >= 15


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [(40, [0, 10, 20, 30, 40]), (41, [0, 20, 40, 60]), (0.9, [0, 0.25, 0.5, 0.75, 1.0])],
)
def test_ticks_reach_over_the_highest_point(load: Any, highest: float, ticks: list[float]) -> None:
    assert load("pictures").choose_ticks(highest) == pytest.approx(ticks)


@pytest.mark.parametrize("heights", [[10.0, 11.0, 12.0], [50.0, 10.0, 51.0, 40.0], [5.0], []])
def test_labels_are_moved_apart_in_their_order(load: Any, heights: list[float]) -> None:
    placed = load("pictures").spread_labels(heights, 1000)
    order = sorted(range(len(heights)), key=heights.__getitem__)
    assert all(placed[b] - placed[a] >= 15.99 for a, b in itertools.pairwise(order))
    assert sum(placed) == pytest.approx(sum(heights))
    bounded = load("pictures").spread_labels(heights, 40)
    assert all(height <= 40 for height in bounded)
    assert all(bounded[b] - bounded[a] >= 15.99 for a, b in itertools.pairwise(order))


def find_luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def find_contrast(colour: str, ground: str) -> float:
    light, dark = sorted(map(find_luminance, (colour, ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", ["#ffffff", "#0d1117"])
def test_colours_can_be_read_on_a_light_and_on_a_dark_page(load: Any, ground: str) -> None:
    pictures = load("pictures")
    assert find_contrast(pictures.INK, ground) >= 4
    for colour in [pictures.ACCENT, *pictures.CURVE_COLOURS.values()]:
        assert find_contrast(colour, ground) >= 3
    assert find_contrast(pictures.BAR, ground) >= 2.5


def test_the_same_figures_give_the_same_picture(load: Any, tmp_path: Path) -> None:
    draw_all(load, tmp_path / "one")
    draw_all(load, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_stored_run_is_drawn_again(load: Any, tmp_path: Path) -> None:
    tables = make_tables(load)
    tables[0].name, tables[1].name = "echo", "lines"
    stored = load("report").write_json(tables, ABOUT, tmp_path)
    ended = run_program("--from", stored, "--pictures", tmp_path / "new", "--only", "echo")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "Echo & more\n  a  b\n  x  1\n" in ended.stdout
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["echo.svg"]


def test_pictures_that_are_kept_are_small_and_whole() -> None:
    for path in (BENCHMARKS / "pictures").glob("*.svg"):
        assert path.stat().st_size < MAX_PICTURE_BYTES, path.name
        assert ElementTree.fromstring(path.read_text("utf-8")).tag == SVG + "svg"


# Progress.


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_left_is_corrected_by_what_tests_took(load: Any) -> None:
    clock = Clock()
    progress = load("progress").Progress({"echo": 10, "lines": 30, "http": 60}, None, clock)
    assert progress.seconds_left() == 100
    progress.begin("echo")
    clock.now += 4
    assert progress.seconds_left() == 96
    clock.now += 16  # twice as long as it was guessed
    assert progress.seconds_left() == 90
    progress.end()
    assert progress.seconds_left() == 180
    progress.begin("lines")
    clock.now += 15
    assert progress.seconds_left() == 165
    clock.now += 500
    assert progress.seconds_left() == 120
    progress.end()
    assert progress.seconds == {"echo": 20, "lines": 515}


def test_a_terminal_shows_one_line_that_is_cleared(load: Any) -> None:
    stream = Terminal()
    progress = load("progress").Progress({"echo": 10, "lines": 600}, stream, Clock())
    progress.begin("echo")
    progress.step("gevent, round 1 of 9")
    progress.end()
    lines = stream.getvalue().split("\r")[1:]
    assert [line.removesuffix("\x1b[K") for line in lines] == [
        "[1/2] echo; about 10 min left",
        "[1/2] echo: gevent, round 1 of 9; about 10 min left",
        "",
    ]


def test_a_file_gets_a_line_every_half_a_minute(load: Any) -> None:
    stream, clock = io.StringIO(), Clock()
    progress = load("progress").Progress({"echo": 60}, stream, clock)
    progress.begin("echo")
    for number in range(1, 61):
        clock.now += 1
        progress.step(f"round {number}")
    progress.end()
    assert stream.getvalue() == (
        "[1/1] echo; about 60 s left\n"
        "[1/1] echo: round 30; about 30 s left\n"
        "[1/1] echo: round 60; about 1 s left\n"
    )


def test_nobody_is_told_without_a_stream(load: Any, capfd: pytest.CaptureFixture[str]) -> None:
    progress = load("progress").Progress()
    progress.begin("echo")
    progress.step("gevent")
    progress.end()
    assert capfd.readouterr() == ("", "")
