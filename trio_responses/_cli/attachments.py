"""Files that go to the model with a question: text, images and PDF files.

The content of a file decides its kind, not its name.
"""

from __future__ import annotations

import base64
from pathlib import PurePath
from typing import TYPE_CHECKING, Final

from trio_responses._cli.files import read_file
from trio_responses._cli.running import UsageError
from trio_responses.types import InputFile, InputImage, InputText, Message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses.types import Input

__all__ = ["attach_files", "data_url", "image_type", "read_attachment"]

IMAGES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)
"""The first bytes of the images that the API accepts, besides WebP."""
PDF: Final = b"%PDF-"


def read_attachment(path: str) -> InputText | InputImage | InputFile:
    """Return the content part of a file: an image, a PDF file, or its text with its name.

    :raises OSError: when the file cannot be read.
    :raises UsageError: for a file that is neither text, nor an image of a known kind, nor a PDF.
    """
    content = read_file(path)
    name = PurePath(path).name.encode(errors="replace").decode()
    kind = image_type(content)
    if kind is not None:
        return InputImage(image_url=data_url(kind, content))
    if content.startswith(PDF):
        return InputFile(filename=name, file_data=data_url("application/pdf", content))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UsageError(
            f"{path} is neither text in UTF-8, nor a PNG, JPEG, GIF or WebP image, nor a PDF file"
        )
    return InputText(text=f'<file name="{name}">\n{text.rstrip()}\n</file>')


def attach_files(question: str, paths: Sequence[str]) -> Input:
    """Return the input for a question and files, in their order: text alone if it is all text.

    :raises OSError: when a file cannot be read.
    :raises UsageError: for a file that the model cannot take.
    """
    parts = [read_attachment(path) for path in paths]
    texts = [part.text for part in parts if isinstance(part, InputText)]
    if len(texts) == len(parts):
        return "\n\n".join([question, *texts] if question else texts)
    first = [InputText(text=question)] if question else []
    return [Message(role="user", content=[*first, *parts])]


def image_type(content: bytes) -> str | None:
    """Return the media type of an image that the API accepts; `None` for other content."""
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for start, kind in IMAGES if content.startswith(start)), None)


def data_url(kind: str, content: bytes) -> str:
    """Return content as a data URL of a media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
