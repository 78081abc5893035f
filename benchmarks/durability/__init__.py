"""What is left after the worst: power cuts."""
