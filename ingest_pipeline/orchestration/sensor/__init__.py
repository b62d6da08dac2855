"""What the sensors do."""
