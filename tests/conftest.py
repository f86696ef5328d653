"""Settings of all tests."""

import os

# Before torch is imported, also by the processes that tests start: tiny models gain nothing from
# threads, and on busy cores lose most of their time to them.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

# These machines pause at times: a deadline would test them and not the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
