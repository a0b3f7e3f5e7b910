"""Benchmarks: peers side by side, one command each."""
