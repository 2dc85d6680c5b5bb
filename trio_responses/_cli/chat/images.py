"""Images for the model: files that are sent as data URLs, and paths of images that are pasted."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from trio_responses import ConfigurationError
from trio_responses._cli.attachments import data_url, image_type
from trio_responses._cli.chat.slash_commands import split_path
from trio_responses.types import InputImage

__all__ = ["MAX_IMAGE_BYTES", "pasted_image", "read_image"]

MAX_IMAGE_BYTES: Final = 10 * 1024 * 1024
"""The largest image that is sent. As base64 it takes a third more: a request has at most 16 MiB."""
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".gif", ".webp")
MAX_PATH: Final = 4096


def read_image(path: str) -> InputImage:
    """Return an image file as a content part with a data URL. The content decides its type.

    :raises OSError: when the file cannot be read.
    :raises ConfigurationError: when the file is too large, or no image that models accept.
    """
    with Path(path).open("rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ConfigurationError(f"{path} is not a regular file")
        content = file.read(MAX_IMAGE_BYTES + 1)
    if len(content) > MAX_IMAGE_BYTES:
        raise ConfigurationError(
            f"{path} is larger than {MAX_IMAGE_BYTES // 1024**2} MiB: send a smaller image"
        )
    kind = image_type(content)
    if kind is None:
        raise ConfigurationError(f"{path} is not an image: send a PNG, JPEG, GIF or WebP file")
    return InputImage(image_url=data_url(kind, content))


def pasted_image(text: str) -> str | None:
    """Return the path of the image file that a pasted text names; `None` for other text.

    A file that is dropped on a terminal is pasted as its path, which may be quoted, have
    backslashes before spaces, or be a ``file://`` URL.
    """
    text = text.strip()
    if "\n" in text or len(text) > MAX_PATH:
        return None
    try:
        path, rest = split_path(text)
    except ValueError:
        return None
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    for candidate in (text, path if not rest else ""):
        if candidate.lower().endswith(SUFFIXES) and os.path.isfile(candidate):  # noqa: PTH113 - a path that is no path is no error
            return candidate
    return None
