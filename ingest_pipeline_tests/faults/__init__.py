"""Faults on purpose: runs killed at every step, records made to break things, secrets looked for everywhere."""
