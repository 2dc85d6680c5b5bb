"""Functions as tools, JSON schemas of types, and typed answers."""
