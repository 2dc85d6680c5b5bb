"""Completion: the scripts, and what the shells that are here make of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from trio_responses._cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.cli_driver import Capture

COMMANDS = ["chat", "ask", "probe", "serve", "record", "replay", "demo", "completion"]
SHELLS = ["bash", "zsh", "fish"]
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def script(shell: str, capsys: Capture) -> str:
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def complete(script: str, *words: str) -> list[str]:
    """Have bash complete the last word."""
    line = " ".join(f"'{word}'" for word in words)
    asks = f"""
{script}
COMP_WORDS=(trio-responses {line})
COMP_CWORD={len(words)}
_trio_responses
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(  # noqa: S603 - our own script
        [shutil.which("bash") or "bash", "-c", asks], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\n")[:-1]


@needs_bash
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pr"], ["probe"]),
        ([""], ["-h", "--help", "--version", "--debug", *COMMANDS]),
        (["serve", "--p"], ["--port"]),
        (["chat", "--tools", "--lo"], ["--load"]),
        (["completion", ""], ["-h", "--help", "--debug", *SHELLS]),
        (["completion", "f"], ["fish"]),
        (["ask", "--model", ""], [""]),
        (["--debug", "chat", "--em"], ["--embedded"]),
        (["chat", "--pre"], [""]),
        (["re"], ["record", "replay"]),
        (["replay", "--ti"], ["--timing"]),
        (["record", "hello.jsonl", "--fo"], ["--force"]),
    ],
)
def test_bash_completes(words: list[str], completed: list[str], capsys: Capture) -> None:
    assert complete(script("bash", capsys), *words) == completed


@needs_bash
def test_bash_completes_files_with_spaces(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "my chat.json").touch()
    for before in (["chat", "--load"], ["ask", "--record"], ["replay"], ["record", "--force"]):
        found = complete(script("bash", capsys), *before, f"{tmp_path}/my")
        assert found == [f"{tmp_path}/my chat.json"]
    assert complete(script("bash", capsys), "probe", f"{tmp_path}/my") == [""]


def test_zsh_and_fish_complete_the_file_of_a_recording(capsys: Capture) -> None:
    [zsh] = re.findall(r"^ *record\) _arguments (.*) ;;$", script("zsh", capsys), re.MULTILINE)
    assert "':the recording: a new file" not in zsh  # a colon ends the words
    assert zsh.index(":_files'") < zsh.index("'*:")
    fish = script("fish", capsys)
    for command in ("record", "replay"):
        assert f"-n '__fish_seen_subcommand_from {command}' -F -d 'the recording" in fish


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_and_option_is_in_the_script(shell: str, capsys: Capture) -> None:
    written = script(shell, capsys)
    for command in COMMANDS:
        assert command in written
        with pytest.raises(SystemExit):
            main([command, "--help"])
        usage = capsys.readouterr().out.partition("\n\n")[0]
        for option in usage.replace("[", " ").replace("]", " ").split():
            if option.startswith("--"):
                assert option in written or f"-l {option[2:]}" in written


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_takes_the_script(shell: str, capsys: Capture) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(  # noqa: S603 - our own script
        [program, "-n"], input=script(shell, capsys), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_wrong_usage(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["completion", "csh"])
    assert left.value.code == 2
    assert "csh" in capsys.readouterr().err
