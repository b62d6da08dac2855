"""Faults on purpose: kills at every step, chaos on real servers, odd bytes, and secrets looked for everywhere."""
