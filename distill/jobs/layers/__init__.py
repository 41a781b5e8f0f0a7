"""What `distill layers` does: list layers, compare them, suggest pairs."""
