"""Benchmarks: run as modules from the repository's root, for example `python -m benchmarks.exactness`."""
