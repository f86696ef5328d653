"""Settings of all tests."""

from hypothesis import settings

# These machines pause at times: a deadline would test them and not the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
