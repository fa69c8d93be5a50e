"""For pytest: the fixture `nothing_left_behind`, which fails a test that leaves something.

It is found by pytest where pycoronet is installed, and does nothing until it is asked for: by
name, by the marker of that name, or for all tests by the ini option
`pycoronet_nothing_left_behind`.
"""

from collections.abc import Generator
from contextlib import suppress

import pytest

_NAME = "nothing_left_behind"
_OPTION = "pycoronet_nothing_left_behind"
_has_failed = pytest.StashKey[bool]()


class _FailedTestError(Exception):
    """Then nothing is looked for: its traceback refers to all that there was."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option."""
    parser.addini(
        _OPTION,
        "fail each test that leaves tasks, timers or descriptors behind",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker."""
    config.addinivalue_line(
        "markers",
        f"{_NAME}(tasks=True, timers=True, descriptors=True): fail the test if it leaves any of "
        "these behind (pycoronet)",
    )


def _scope_is_function(item: pytest.Item, name: str) -> bool:
    definitions = item._fixtureinfo.name2fixturedefs.get(name)  # type: ignore[attr-defined]
    return not definitions or definitions[-1].scope == "function"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the fixture set up before all others of a function, and so end after them."""
    if not isinstance(item, pytest.Function):
        return  # not reached: doctests and the like
    is_wanted = item.get_closest_marker(_NAME) is not None or item.config.getini(_OPTION)
    if is_wanted or _NAME in item.fixturenames:
        names = [name for name in item.fixturenames if name != _NAME]
        wider = [name for name in names if not _scope_is_function(item, name)]
        item.fixturenames = [*wider, _NAME, *(name for name in names if name not in wider)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests have failed."""
    report = yield
    if call.excinfo is not None:
        item.stash[_has_failed] = True
    return report


@pytest.fixture
def nothing_left_behind(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """Fail the test if it leaves tasks, timers or descriptors that were not there before.

    As pycoronet.testing.nothing_left_behind() does, whose arguments the marker may have. It
    looks when the test's other fixtures have ended, and not at all if the test has failed.
    """
    # Here, so that pytest does not import the extension for those who do not want it.
    from pycoronet.testing import nothing_left_behind as watch

    marker = request.node.get_closest_marker(_NAME)
    try:
        with suppress(_FailedTestError), watch(**({} if marker is None else marker.kwargs)):
            yield
            if request.node.stash.get(_has_failed, False):
                raise _FailedTestError
    except AssertionError as error:
        pytest.fail(str(error), pytrace=False)
