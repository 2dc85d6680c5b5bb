"""Content parts and annotations: the objects inside messages, tool outputs and reasoning items.

Each part has a ``type`` on the wire, and its class is named after that type.
"""

from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from trio_responses._wire.base import JSON, Part, Record

if TYPE_CHECKING:
    from trio_responses._wire.base import UnknownPart


class TopLogprob(Record, frozen=True, kw_only=True):
    """One of the most likely tokens at a position of the output, with its log probability."""

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    """The UTF-8 bytes of the token; a token may be an incomplete character."""


class Logprob(Record, frozen=True, kw_only=True):
    """The log probability of one token of the output."""

    token: str = ""
    logprob: float | None = None
    bytes: list[int] | None = None
    """The UTF-8 bytes of the token; a token may be an incomplete character."""
    top_logprobs: list[TopLogprob] | None = None
    """The most likely tokens at the same position, as many as ``top_logprobs`` requested."""


class FileCitation(Part, frozen=True, kw_only=True, tag="file_citation"):
    """A citation of a file that file search found."""

    type: ClassVar[Literal["file_citation"]] = "file_citation"
    file_id: str
    filename: str | None = None
    index: int | None = None
    """Position of the citation in the text, in characters from the start."""


class UrlCitation(Part, frozen=True, kw_only=True, tag="url_citation"):
    """A citation of a web page, for the text from ``start_index`` to ``end_index``."""

    type: ClassVar[Literal["url_citation"]] = "url_citation"
    url: str
    title: str | None = None
    start_index: int | None = None
    """Start of the cited text, in characters from the start of the part."""
    end_index: int | None = None
    """End of the cited text."""


class ContainerFileCitation(Part, frozen=True, kw_only=True, tag="container_file_citation"):
    """A citation of a file in the container of a code interpreter."""

    type: ClassVar[Literal["container_file_citation"]] = "container_file_citation"
    file_id: str
    container_id: str | None = None
    filename: str | None = None
    start_index: int | None = None
    """Start of the cited text, in characters from the start of the part."""
    end_index: int | None = None
    """End of the cited text."""


class FilePath(Part, frozen=True, kw_only=True, tag="file_path"):
    """A path in the text to a file that the model wrote."""

    type: ClassVar[Literal["file_path"]] = "file_path"
    file_id: str
    index: int | None = None
    """Position of the file in the list of files."""


# msgspec builds its decoders from the unions in the `else` branches of this package, and accepts
# only tagged Structs in them. Lenient decoding adds the unknown objects that the types promise.
_KnownAnnotation: TypeAlias = FileCitation | UrlCitation | ContainerFileCitation | FilePath
if TYPE_CHECKING:
    Annotation: TypeAlias = _KnownAnnotation | UnknownPart
    """An annotation of output text: the source that the text cites."""
else:
    Annotation = _KnownAnnotation


class InputText(Part, frozen=True, kw_only=True, tag="input_text"):
    """A content part with input text for the model."""

    type: ClassVar[Literal["input_text"]] = "input_text"
    text: str
    prompt_cache_breakpoint: JSON = None
    """Marks the end of the prefix that the server should cache; also in the other input parts."""


class InputImage(Part, frozen=True, kw_only=True, tag="input_image"):
    """A content part with an image for the model: a URL, a data URL or an uploaded file's id.

    ``detail`` is ``low``, ``high``, ``auto`` or ``original``.
    """

    type: ClassVar[Literal["input_image"]] = "input_image"
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: JSON = None


class InputFile(Part, frozen=True, kw_only=True, tag="input_file"):
    """A content part with a file for the model: a URL, base64 data or an uploaded file's id."""

    type: ClassVar[Literal["input_file"]] = "input_file"
    file_id: str | None = None
    file_url: str | None = None
    file_data: str | None = None
    filename: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: JSON = None


class OutputText(Part, frozen=True, kw_only=True, tag="output_text"):
    """A content part with text that the model wrote."""

    type: ClassVar[Literal["output_text"]] = "output_text"
    text: str
    annotations: list[Annotation] | None = None
    """The citations of the text; `None` if the server omits the field."""
    logprobs: list[Logprob] | None = None
    """Log probabilities of the tokens, if ``include`` requested them."""


class Refusal(Part, frozen=True, kw_only=True, tag="refusal"):
    """A content part with the model's refusal to answer."""

    type: ClassVar[Literal["refusal"]] = "refusal"
    refusal: str


class ReasoningText(Part, frozen=True, kw_only=True, tag="reasoning_text"):
    """A content part with text of the model's reasoning, from models that disclose it."""

    type: ClassVar[Literal["reasoning_text"]] = "reasoning_text"
    text: str


class SummaryText(Part, frozen=True, kw_only=True, tag="summary_text"):
    """A content part with summary text of the model's reasoning."""

    type: ClassVar[Literal["summary_text"]] = "summary_text"
    text: str


class Text(Part, frozen=True, kw_only=True, tag="text"):
    """A content part with text between agents (beta, multi-agent)."""

    type: ClassVar[Literal["text"]] = "text"
    text: str


class EncryptedContent(Part, frozen=True, kw_only=True, tag="encrypted_content"):
    """A content part with encrypted content between agents (beta, multi-agent)."""

    type: ClassVar[Literal["encrypted_content"]] = "encrypted_content"
    encrypted_content: str


class ComputerScreenshot(Part, frozen=True, kw_only=True, tag="computer_screenshot"):
    """A screenshot of a computer: a URL, a data URL or the id of an uploaded file.

    ``detail`` is ``low``, ``high``, ``auto`` or ``original``.
    """

    type: ClassVar[Literal["computer_screenshot"]] = "computer_screenshot"
    image_url: str | None = None
    file_id: str | None = None
    detail: str | None = None
    prompt_cache_breakpoint: JSON = None


_KnownContentPart: TypeAlias = (
    InputText | InputImage | InputFile | OutputText | Refusal | ReasoningText | SummaryText
)
if TYPE_CHECKING:
    ContentPart: TypeAlias = _KnownContentPart | UnknownPart
    """A content part of a message, of a tool's output or of reasoning."""
else:
    ContentPart = _KnownContentPart

_KnownAgentContentPart: TypeAlias = _KnownContentPart | Text | ComputerScreenshot | EncryptedContent
if TYPE_CHECKING:
    AgentContentPart: TypeAlias = _KnownAgentContentPart | UnknownPart
    """A content part of a message between agents (beta, multi-agent)."""
else:
    AgentContentPart = _KnownAgentContentPart
