"""Real searches for tests: the tiny search of the scripts under the name that tests use."""

from scripts.tiny_search import LANGUAGES, ROOT, Run, environment, launch, write_search, write_task

__all__ = ["LANGUAGES", "ROOT", "Run", "environment", "launch", "write_search", "write_task"]
