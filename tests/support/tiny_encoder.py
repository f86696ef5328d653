"""A tiny random encoder: the one of the scripts under the name that tests use."""

from scripts.tiny_encoder import DEFAULT_TEXTS, MAX_LENGTH, Family, tiny_encoder

__all__ = ["DEFAULT_TEXTS", "MAX_LENGTH", "Family", "tiny_encoder"]
