"""A schema registry, and the formats that need a registry."""
