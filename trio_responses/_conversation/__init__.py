"""Conversations: histories that outlive their socket, and runs of turns and tools."""
