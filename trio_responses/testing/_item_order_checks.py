"""Checks of the items of a request together: calls and outputs, reasoning, ids.

The server keeps the items of the chain that ends with ``previous_response_id``. They were checked
before: only the calls in them that have no output yet matter.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

CallKey: TypeAlias = tuple[str, str]
"""The type of an output, and the ``call_id`` of the call that it answers."""

OUTPUT_TYPES: Final[Mapping[str, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "tool_search_call": "tool_search_output",
}
"""The type of the output that answers each type of call by the model."""

_CALL_TYPES: Final = {output: call for call, output in OUTPUT_TYPES.items()}
_NOT_BY_THE_MODEL: Final = ("user", "system", "developer")
