"""A schema registry, and the formats that need one."""
