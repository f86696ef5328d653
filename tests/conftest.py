"""Settings of all tests, and which of them run one after the other."""

import os
from pathlib import Path
from typing import Any

# Before torch is imported, also by the processes that tests start: tiny models gain nothing from
# threads, and on busy cores lose most of their time to them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A busy machine pauses at times: a deadline would test the machine and not the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

INTEGRATION = Path(__file__).parent / "integration"
SHARED = {
    "test_browser.py": "finished_search",
    "test_export.py": "finished_search",
    "test_search.py": "finished_search",
    "test_report.py": "recorded_search",
    "test_trust.py": "recorded_search",
}
"""Files of tests/integration that look at a search which is run once, by its fixture."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the integration tests first, so that all processes end at about the same time."""
    items.sort(key=lambda item: not item.path.is_relative_to(INTEGRATION))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file, and the files that share a search, in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            parent, _, name = file.rpartition("/")
            return SHARED.get(name, file) if parent.endswith(INTEGRATION.name) else file

    return ByFile(config, log)
