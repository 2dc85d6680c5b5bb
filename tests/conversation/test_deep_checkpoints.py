"""Checkpoints and recordings that nest too deeply are refused, whatever the thread's stack is."""

from __future__ import annotations

import pytest

from trio_responses import ConfigurationError
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._instruments.recording import Recording


@pytest.mark.parametrize("levels", [600, 100_000])
@pytest.mark.parametrize("place", ["settings", "items"])
def test_a_checkpoint_that_nests_too_deeply_is_no_checkpoint(place: str, levels: int) -> None:
    deep = b'{"a":%s}' % (b"[" * levels + b"]" * levels)
    fields = {"settings": b"{}", "items": b"[]"}
    fields[place] = deep if place == "settings" else b"[%s]" % deep
    saved = b'{"format":"trio-responses conversation","version":1,"settings":%s,"items":%s}'
    with pytest.raises(ConfigurationError, match="nests too deeply"):
        Checkpoint.decode(saved % (fields["settings"], fields["items"]))


def test_a_recording_that_nests_too_deeply_is_refused_with_its_line() -> None:
    header = b'{"format":"trio-responses recording","version":1}\n'
    line = b'{"dir":"in","t":0,"socket":1,"frame":%s}\n' % (b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(ConfigurationError, match="line 2: the JSON nests too deeply"):
        Recording.parse(header + line)
