"""Benchmarks that print ratios measured in one run; see docs/performance.md."""
