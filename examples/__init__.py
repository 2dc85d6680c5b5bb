"""Example programs; the README of this folder describes each in one line."""
