"""Measurements on real servers of this machine. `make bench` runs them and writes docs/benchmarks.md."""
