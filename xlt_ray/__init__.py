"""Zero-shot cross-lingual transfer from English labels, searched on a Ray cluster."""

__version__ = "0.1.0"
