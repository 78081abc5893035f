"""What the loop doctor looks at, one question a module."""
