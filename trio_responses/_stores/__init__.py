"""Stores for durable conversations: the interface, and one implementation for each engine."""
