"""What ``--help`` teaches: what each command is for, and how it is used.

What belongs elsewhere: the options themselves (`arguments.py`).
"""

from __future__ import annotations

from typing import Final

from trio_responses._cli.running import PROG

PROGRAM: Final = f"""\
examples:
  {PROG} demo
      see the library at work on a server of its own, every step checked
  {PROG} chat --embedded --tools
      talk to the embedded server: no key and no network needed
  {PROG} ask --embedded "What can you do?"
      ask it one thing
  OPENAI_API_KEY=... {PROG} ask "Why is the sky blue?"
      ask OpenAI, and read the answer as it is written
  {PROG} serve --port 8765
      run the embedded server for other programs, then for example
  {PROG} ask --base-url http://127.0.0.1:8765/v1 "Hello"
  {PROG} probe --base-url http://127.0.0.1:8765/v1
      find out what a server can do
  {PROG} record hello.jsonl "Hello"
      record what a server says, for tests that need it no more:
  {PROG} replay hello.jsonl --port 8765
  eval "$({PROG} completion bash)"
      complete commands and options with the Tab key

"{PROG} COMMAND --help" tells more about each command. An error is one line on
stderr, and exit code 1; --debug shows where it comes from.
"""

ENVIRONMENT: Final = """\
environment:
  OPENAI_API_KEY    the key; not needed for --embedded and servers on this machine
  OPENAI_BASE_URL   where to connect to without --base-url
"""

ASK: Final = f"""\
The answer's text goes to stdout as it comes; everything else goes to stderr.
Exit codes: 0 for an answer, also a refused or incomplete one, which is noted on
stderr; 1 for an error; 2 for wrong usage; 130 after Ctrl-C.

{ENVIRONMENT}
examples:
  {PROG} ask "Why is the sky blue?"
  git diff | {PROG} ask --instructions "Review this patch" -
  {PROG} ask --json "Hi" | jq .usage
  {PROG} ask --embedded "What is it like in there?"
  {PROG} ask --record sky.jsonl "Why is the sky blue?"
      and "{PROG} replay sky.jsonl" answers as it was answered
"""

CHAT: Final = f"""\
The history is kept here, and survives a lost connection. In a terminal, answers
are shown as Markdown where rich is installed: pip install "{PROG}[cli]".
Otherwise answers go to stdout as plain text, and everything else to stderr.

while you chat:
  /save FILE    save the conversation     /reset   forget it and begin anew
  /load FILE    go on with a saved one    /quit    leave, as Ctrl-D does
  Ctrl-C        cancel the answer that is being written; once more to leave

Exit codes: 0 after /quit and at the end of the input; 1 when the connection is lost
for good; 2 for wrong usage; 130 after Ctrl-C.

{ENVIRONMENT}
examples:
  {PROG} chat --embedded --tools
      then ask it "What time is it in Oslo?" or "What is 6 * 7?"
  {PROG} chat --instructions "Answer in one sentence"
  {PROG} chat --load yesterday.json
  {PROG} chat --embedded --max-age 12
      see the connection replaced every ten seconds
  {PROG} chat --tools --record tools.jsonl
      record all that goes over the wire, as "{PROG} record --help" tells
  printf 'Hello\\nAnd you?\\n' | {PROG} chat --embedded 2> /dev/null
"""

PROBE: Final = f"""\
Each feature is tried on a connection of its own. A dozen small turns are asked for,
which a server that bills will bill. The verdicts:
  works      seen to work
  unclear    taken without complaint, but nothing shows that it had an effect
  no         refused, or not understood
  fails      it went wrong
  skipped    what it builds on does not work

Exit codes: 0 when the basics work (handshake and text turn), whatever else is
missing; 1 when not, or for an error; 2 for wrong usage; 130 after Ctrl-C.

{ENVIRONMENT}
examples:
  {PROG} probe --embedded
  {PROG} probe --base-url http://127.0.0.1:8000/v1 --model my-model
  {PROG} probe --model gpt-5.5 --model gpt-5-mini
      the first one that answers is used
  {PROG} probe --json | jq '.features[] | select(.verdict != "works")'
"""

SERVE: Final = f"""\
The server answers by itself, and the same way every time: it repeats what it was
told, calls a function tool whose name shares a word with the question, and reports
what the function returned. Any client of the WebSocket mode can use it:

  {PROG} serve --port 8765
  OPENAI_BASE_URL=http://127.0.0.1:8765/v1 OPENAI_API_KEY=any python your_program.py

With --max-age 10 every socket is ended after ten seconds instead of an hour.
"""

RECORD: Final = f"""\
It asks as "{PROG} ask" does; several questions are the turns of one conversation.
The recording is a file of JSON lines with their times: every message that is sent or
received, errors too. It holds content, and only its owner may read it; it has no key
and no header. A file that is there is not overwritten without --force (it keeps its
mode then), and where there was no connection, none is made. "chat" and "ask" record
with --record FILE. Exit codes: 0 for an answer to each question; 1 for an error, which
ends it; 2 for wrong usage; 130 after Ctrl-C. What was said until then is in the file.

{ENVIRONMENT}
examples:
  {PROG} record hello.jsonl "Hello" "And in French?"
  {PROG} record --base-url http://127.0.0.1:8000/v1 --model my-model mine.jsonl "Hi"
  {PROG} record --embedded --force hello.jsonl "Hello"
  {PROG} replay hello.jsonl
"""

REPLAY: Final = f"""\
Requests are answered in the order in which they come, whatever they ask: with the
messages that the recording has for them, the same ids and numbers. Where the server
ended the socket then, it is ended here. Behind the last one the server answers as that
of "{PROG} serve" does, and says so on stderr. To begin anew, start it again.

  {PROG} record session.jsonl "Hello"
  {PROG} replay session.jsonl --port 8765
  OPENAI_BASE_URL=http://127.0.0.1:8765/v1 OPENAI_API_KEY=any python your_program.py

In Python, server.replay("session.jsonl") of trio_responses.testing does the same within
a test. Ctrl-C and SIGTERM end it with 0; 1 is for a file that is no recording, and for
an address that cannot be listened on.
"""

DEMO: Final = """\
It needs no key and no network: it runs the embedded server and talks to it over a
real socket on the loopback address. It cuts that socket in the middle of an answer,
and lets it grow too old. Every step is checked against what the server has seen.
Exits with 0 only if all of them came out as promised. It takes about five seconds.
The source, trio_responses/_cli/demo.py, is meant to be read.

example:
  trio-responses demo
"""

COMPLETION: Final = f"""\
It prints a script for the shell, made from the options of this very version:

  eval "$({PROG} completion bash)"                 in ~/.bashrc
  eval "$({PROG} completion zsh)"                  in ~/.zshrc, behind compinit
  {PROG} completion fish | source                  in ~/.config/fish/config.fish
"""
