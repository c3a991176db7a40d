"""Measurements of speed. Each module is a command: `python -m benchmarks.NAME --help`."""
