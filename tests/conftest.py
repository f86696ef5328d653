"""Settings of all tests, and which of them run one after the other."""

import os
from pathlib import Path

# Before torch is imported, also by the processes that tests start: tiny models gain nothing from
# threads, and on busy cores lose most of their time to them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A busy machine pauses at times: a deadline would test the machine and not the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

INTEGRATION = Path(__file__).parent / "integration"
SHARED = ("finished_search", "recorded_search")
"""Fixtures of tests/integration that run a whole search once."""


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and run the integration tests first.

    The tests of a group share one process. A file is a group, so that its fixtures are made once;
    so are all tests that use the same shared search.
    """
    for item in items:
        used = getattr(item, "fixturenames", ())
        for name in SHARED:
            if name in used:
                item.add_marker(pytest.mark.xdist_group(name))
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(
                pytest.mark.xdist_group(str(item.path.relative_to(item.config.rootpath)))
            )
    # The long groups come first, so that both processes end at about the same time.
    items.sort(key=lambda item: not item.path.is_relative_to(INTEGRATION))
