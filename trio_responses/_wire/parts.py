"""What stands inside messages, tool outputs and reasoning: content parts and annotations.

Each has a ``type`` on the wire and is named after it. The items that hold them are in
:mod:`~trio_responses._wire.items`.
"""

from typing import TYPE_CHECKING, TypeAlias

from trio_responses._wire.base import JSON, Part, Record

if TYPE_CHECKING:
    from trio_responses._wire.base import UnknownPart


class TopLogprob(Record, frozen=True, kw_only=True):
    """One of the likeliest tokens at a position, with its log probability."""

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    """The UTF-8 of the token: some are half a character."""


class Logprob(Record, frozen=True, kw_only=True):
    """The log probability of a token of the output."""

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    """The UTF-8 of the token: some are half a character."""
    top_logprobs: list[TopLogprob] | None = None
    """The likeliest tokens at its place, as many as ``top_logprobs`` asked for."""


class FileCitation(Part, frozen=True, kw_only=True, tag="file_citation"):
    """A citation of a file that file search found."""

    file_id: str
    filename: str | None = None
    index: int | None = None
    """Where in the text it belongs: characters from the beginning."""


class UrlCitation(Part, frozen=True, kw_only=True, tag="url_citation"):
    """A citation of a web page, for the text between two indices."""

    url: str
    title: str | None = None
    start_index: int | None = None
    """Where the text begins that it is for: characters from the beginning."""
    end_index: int | None = None
    """Where that ends."""


class ContainerFileCitation(Part, frozen=True, kw_only=True, tag="container_file_citation"):
    """A citation of a file in a code interpreter's container."""

    file_id: str
    container_id: str | None = None
    filename: str | None = None
    start_index: int | None = None
    """Where the text begins that it is for: characters from the beginning."""
    end_index: int | None = None
    """Where that ends."""


class FilePath(Part, frozen=True, kw_only=True, tag="file_path"):
    """A file that the model wrote and names in its text."""

    file_id: str
    index: int | None = None
    """Its place in the list of files."""


# msgspec builds its decoders from the right-hand side of each `else` in this package: it accepts
# tagged Structs alone in such a union, and `tolerance` puts the unknown ones in.
_KnownAnnotation: TypeAlias = FileCitation | UrlCitation | ContainerFileCitation | FilePath
if TYPE_CHECKING:
    Annotation: TypeAlias = _KnownAnnotation | UnknownPart
    """What a text refers to."""
else:
    Annotation = _KnownAnnotation


class InputText(Part, frozen=True, kw_only=True, tag="input_text"):
    """Text for the model."""

    text: str
    prompt_cache_breakpoint: JSON = None
    """Asks for the prompt to be cached up to here; so in the other parts."""


class InputImage(Part, frozen=True, kw_only=True, tag="input_image"):
    """An image for the model: a URL, a data URL or the id of an uploaded file.

    ``detail`` is ``low``, ``high``, ``auto`` or ``original``.
    """

    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: JSON = None


class InputFile(Part, frozen=True, kw_only=True, tag="input_file"):
    """A file for the model: its URL, its data in base64 or the id of an uploaded file."""

    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: JSON = None


class OutputText(Part, frozen=True, kw_only=True, tag="output_text"):
    """Text that the model wrote."""

    text: str
    annotations: list[Annotation] | None = None
    """What it refers to; `None` where the server left that out."""
    logprobs: list[Logprob] | None = None
    """One for each token, where ``include`` asked for them."""


class Refusal(Part, frozen=True, kw_only=True, tag="refusal"):
    """The model's words where it would not answer."""

    refusal: str


class ReasoningText(Part, frozen=True, kw_only=True, tag="reasoning_text"):
    """A piece of the model's reasoning, where the model shows it."""

    text: str


class SummaryText(Part, frozen=True, kw_only=True, tag="summary_text"):
    """A piece of the summary of the model's reasoning."""

    text: str


_KnownContentPart: TypeAlias = (
    InputText | InputImage | InputFile | OutputText | Refusal | ReasoningText | SummaryText
)
if TYPE_CHECKING:
    ContentPart: TypeAlias = _KnownContentPart | UnknownPart
    """A piece of a message, of a tool's output or of reasoning."""
else:
    ContentPart = _KnownContentPart
