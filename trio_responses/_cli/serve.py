"""The commands ``serve`` and ``replay``, which run the embedded server until a signal.

``serve`` answers by itself; ``replay`` answers from a recording first. Both print the URL that the
server listens on.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, final

import trio

from trio_responses import ConfigurationError, Recording
from trio_responses._cli.files import decoding, read_file
from trio_responses._cli.probe_features import answer_slowly
from trio_responses._cli.running import FAILED, SIGNAL_BASE, print_error, print_note, run
from trio_responses.testing import default_answer, open_test_server

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from trio_responses.testing import Answer, Request, ResponsesServer

__all__ = ["load_recording", "replay", "serve"]


def serve(arguments: argparse.Namespace) -> int:
    """Run the embedded server until a signal."""
    server = open_test_server(
        api_key=arguments.api_key,
        max_age=arguments.max_age,
        unknown_parameters=arguments.unknown_parameters,
        transport=arguments.transport,
    )
    return _run_server(server, answer_probes_slowly, host=arguments.host, port=arguments.port)


def answer_probes_slowly(server: ResponsesServer) -> None:
    """Let the answers to ``probe`` take time, as those of a model do: it has to see turns overlap.

    All other answers are sent at once.
    """
    server.respond_with(answer_slowly)


def replay(arguments: argparse.Namespace) -> int:
    """Run the embedded server with the answers of a recording until a signal."""
    content = read_file(arguments.file)
    with decoding(arguments.file, "a recording"):
        recording = Recording.parse(content)
    prepare = partial(
        load_recording,
        recording=recording,
        name=arguments.file,
        timing=arguments.timing,
    )
    server = open_test_server(
        api_key=arguments.api_key,
        strict=False,  # the recorded server may have accepted more than ours
        max_age=None,  # a socket is closed where it was closed in the recording
    )
    return _run_server(server, prepare, host=arguments.host, port=arguments.port)


def _run_server(
    opening: AbstractAsyncContextManager[ResponsesServer],
    prepare: Callable[[ResponsesServer], None],
    *,
    host: str,
    port: int,
) -> int:
    """Run the embedded server until a signal, and return the exit code.

    :param opening: opens the server.
    :param prepare: scripts the answers of the server, before the server listens.
    """
    code = run(partial(_serve_until_signal, opening, prepare, host=host, port=port))
    return 0 if code > SIGNAL_BASE else code


async def _serve_until_signal(
    opening: AbstractAsyncContextManager[ResponsesServer],
    prepare: Callable[[ResponsesServer], None],
    *,
    host: str,
    port: int,
) -> int:
    async with opening as server:
        prepare(server)
        try:
            url = await server.serve_tcp(port, host)
        except (OSError, UnicodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            print_error(f"cannot listen on {host} port {port}: {reason}")
        else:
            print(f"listening on {url}", flush=True)
            await trio.sleep_forever()
    return FAILED


def load_recording(
    server: ResponsesServer, *, recording: Recording, name: str, timing: bool
) -> None:
    """Load a recording into a server, which answers by default after the last recorded request.

    :param name: the name of the recording's file, for the error message.
    :param timing: send each message with its recorded delay.
    :raises ConfigurationError: when the recording has no request.
    """
    with decoding(name, "a recording"):
        requests = server.replay(recording, timing=timing)
    if not requests:
        raise ConfigurationError(
            f"{name} has no request, so there is nothing to replay: record a turn first"
        )
    server.respond_with(AnswerAfterRecording())


@final
class AnswerAfterRecording:
    """A responder for requests after the last recorded one; the first writes a note to stderr."""

    def __init__(self) -> None:
        self._noted = False

    def __call__(self, request: Request) -> Answer:
        """Return the default answer of the embedded server."""
        if not self._noted:
            self._noted = True
            print_note(
                "the recording has no more requests: further ones get answers that are not recorded"
            )
        return default_answer(request)
