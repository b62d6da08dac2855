"""Deliberate faults: kills at every step, chaos on real servers, malformed bytes, and a search for leaked secrets."""
