"""How a package of an extra is installed: one text for all messages."""

__all__ = ["install_hint"]


def install_hint(extra: str) -> str:
    """Return the commands that install an extra, from an index and from a checkout."""
    name = f'pip install "trio-responses[{extra}]"'
    return f'install the extra {extra}: {name}, or pip install ".[{extra}]" in a checkout'
