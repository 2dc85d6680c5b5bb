"""Functions as tools, and typed answers."""
