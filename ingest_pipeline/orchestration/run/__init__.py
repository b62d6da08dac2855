"""What one run does."""
