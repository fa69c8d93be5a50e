"""What the compiler and the linker were asked for is in the module that was built.

The flags themselves are seen to by test_build.py; here is what they left in the file.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pycoronet import _coronet

elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into an ELF file")

# endbr64: where an indirect call may arrive on processors that check.
LANDING_PAD = b"\xf3\x0f\x1e\xfa"


@pytest.fixture(scope="module")
def module() -> Iterator[Any]:
    """Give the built module, unless it was built to find faults instead of to be used."""
    with Path(_coronet.__file__).open("rb") as file:
        module = elffile.ELFFile(file)
        names = {symbol.name for symbol in symbols(module)}
        for mark in ("__asan_init", "__tsan_init", "__ubsan_handle_type_mismatch_v1_abort"):
            if mark in names:
                pytest.skip("sanitizers and hardening do not go together")
        if "__assert_fail" in names:
            pytest.skip("a debug build is not hardened")
        yield module


def symbols(module: Any) -> Iterator[Any]:
    yield from module.get_section_by_name(".dynsym").iter_symbols()


def segments(module: Any, kind: str) -> list[Any]:
    return [segment for segment in module.iter_segments() if segment["p_type"] == kind]


def tags(module: Any) -> dict[str, int]:
    return {
        tag.entry.d_tag: tag.entry.d_val
        for tag in module.get_section_by_name(".dynamic").iter_tags()
    }


def test_addresses_of_functions_cannot_be_overwritten(module: Any) -> None:
    assert len(segments(module, "PT_GNU_RELRO")) == 1
    bind_now = 8
    assert "DT_BIND_NOW" in tags(module) or tags(module).get("DT_FLAGS", 0) & bind_now


def test_nothing_can_be_written_and_executed(module: Any) -> None:
    execute, write = 1, 2
    [stack] = segments(module, "PT_GNU_STACK")
    for segment in [stack, *segments(module, "PT_LOAD")]:
        assert segment["p_flags"] & (execute | write) != execute | write
    assert not stack["p_flags"] & execute
    assert "DT_TEXTREL" not in tags(module)


def test_a_stack_that_was_overrun_and_a_copy_too_long_end_the_process(module: Any) -> None:
    names = {symbol.name for symbol in symbols(module)}
    assert "__stack_chk_fail" in names
    libc = platform.libc_ver()[0]
    if libc != "glibc":
        pytest.skip("only glibc has functions for _FORTIFY_SOURCE")
    assert {"__memcpy_chk", "__memset_chk", "__snprintf_chk"} & names


def test_functions_that_are_called_by_address_are_marked(module: Any) -> None:
    if module.get_machine_arch() != "x64":
        pytest.skip("marks of x86-64")
    [entry] = [symbol for symbol in symbols(module) if symbol.name == "PyInit__coronet"]
    [code] = [
        segment
        for segment in segments(module, "PT_LOAD")
        if 0 <= entry["st_value"] - segment["p_vaddr"] < segment["p_filesz"]
    ]
    offset = entry["st_value"] - code["p_vaddr"]
    assert code.data()[offset : offset + len(LANDING_PAD)] == LANDING_PAD


def test_one_name_alone_is_to_be_seen_from_outside(module: Any) -> None:
    defined = [symbol.name for symbol in symbols(module) if symbol["st_shndx"] != "SHN_UNDEF"]
    assert defined == ["PyInit__coronet"]
