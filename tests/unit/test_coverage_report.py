"""What `make coverage` says of lines that no test runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REPORT = Path(__file__).parents[1] / "coverage" / "report.py"

SOURCE = """\
int ready;
if (failed) {
    error = 5; // not reached: the kernel's memory is never short
    goto fail;
}
ready = 1;
if (lost) {
    // not reached: nobody
    // knows how
    return -1;
}
ready = 2;
fail:
return 0;
// not reached: nobody asks
static int
ask(void)
{
}
"""


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coverage_report", REPORT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def file_with(report: ModuleType, folder: Path, **counts: int) -> object:
    path = folder / "source.c"
    path.write_text(SOURCE)
    run = dict.fromkeys((2, 3, 4, 6, 7, 10, 12, 14), 1)
    return report.File("layer 3", path, run | {int(line[1:]): n for line, n in counts.items()})


def test_a_reason_holds_up_to_the_next_line_that_was_run(
    report: ModuleType, tmp_path: Path
) -> None:
    file = file_with(report, tmp_path, l3=0, l4=0, l10=0, l12=0)
    assert file.missed == [3, 4, 10, 12]
    assert report.find_reasonless(file) == []
    assert report.find_reasonless(file_with(report, tmp_path, l6=0, l14=0)) == [6, 14]


def test_the_list_says_why(
    report: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "ROOT", tmp_path)
    file = file_with(report, tmp_path, l3=0, l4=0, l10=0, l14=0, l17=0)
    assert list(report.list_reasons(file)) == [
        "source.c:3-4: the kernel's memory is never short",
        "source.c:10: nobody knows how",
        "source.c:14: NO REASON",
        "source.c:17: nobody asks",
    ]


def test_a_jump_without_a_run_and_a_reason_is_found(report: ModuleType, tmp_path: Path) -> None:
    assert report.find_gotos(file_with(report, tmp_path, l3=0, l4=0)) == (1, [])
    assert report.find_gotos(file_with(report, tmp_path, l4=0)) == (1, [4])


def test_each_c_file_has_its_layer(report: ModuleType) -> None:
    layers = report.read_layers()
    assert layers["list.h"] == "layer 1"
    assert layers["reactor.c"] == layers["reactor.h"] == "layer 2"
    assert layers["py_hub.c"] == "layer 3"
    assert set(layers.values()) <= set(report.BOUNDS)


def test_line_numbers_are_written_as_ranges(report: ModuleType) -> None:
    assert report.as_ranges([3, 7, 8, 9, 12]) == "3, 7-9, 12"
