"""One file for each version. A released file never changes."""
