"""Settings of all tests, and which of them run one after the other."""

import os

# Before torch is imported, also by the processes that tests start: tiny models gain nothing from
# threads, and on busy cores lose most of their time to them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A busy machine pauses at times: a deadline would test the machine and not the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and run the integration tests first.

    The tests of a group share one process. A file is a group, so that its fixtures are made once;
    files that share a search name one group.
    """
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(
                pytest.mark.xdist_group(str(item.path.relative_to(item.config.rootpath)))
            )
    # The long groups come first, so that both processes end at about the same time.
    items.sort(key=lambda item: "integration" not in item.path.parts)
