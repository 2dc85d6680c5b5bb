"""Completion in a shell: the scripts that are printed, and the completions of installed shells."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.cli_driver import HANG_GUARD
from trio_responses._cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.cli_driver import Capture, Patch

pytest.importorskip("shtab")

COMMANDS = [
    *("chat", "ask", "probe", "serve", "record", "replay", "demo", "conversations", "completion"),
]
SHELLS = ["bash", "zsh", "fish"]
needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
needs_fish = pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")


def script(shell: str, capsys: Capture) -> str:
    assert main(["completion", shell]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def run_shell(shell: str, code: str, *, cwd: Path | None = None) -> list[str]:
    done = subprocess.run(  # noqa: S603 - our own script
        [shutil.which(shell) or shell, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        timeout=HANG_GUARD,
    )
    return done.stdout.splitlines()


def complete_in_bash(script: str, *words: str) -> list[str]:
    """Return the completions of the last word."""
    line = " ".join(f"'{word}'" for word in words)
    return run_shell(
        "bash",
        f"""
{script}
COMP_WORDS=(trio-responses {line})
COMP_CWORD={len(words)}
_shtab_trio_responses 2> /dev/null
[ ${{#COMPREPLY[@]}} = 0 ] || printf '%s\\n' "${{COMPREPLY[@]}}"
""",
    )


def complete_in_fish(script: str, line: str, *, cwd: Path | None = None) -> list[str]:
    """Return the completions of the last word, without their descriptions, sorted by fish."""
    lines = run_shell("fish", f"{script}\ncomplete -C 'trio-responses {line}'", cwd=cwd)
    return [line.partition("\t")[0] for line in lines]


@needs_bash
@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pr"], ["probe"]),
        ([""], COMMANDS),
        (["-"], ["-h", "--help", "--version", "--debug"]),
        (["serve", "--p"], ["--port"]),
        (["chat", "--demo-tools", "--lo"], ["--load"]),
        (["completion", ""], SHELLS),
        (["completion", "-"], ["-h", "--help", "--debug"]),
        (["completion", "f"], ["fish"]),
        (["conversations", ""], ["list", "show", "export", "delete"]),
        (["ask", "--model", ""], []),
        (["ask", "--too"], ["--tools", "--tool-choice"]),
        (["chat", "--end"], ["--endpoint"]),
        (["chat", "--endpoint", ""], ["openai", "azure", "xai", "compatible"]),
        (["ask", "--verbosity", "l"], ["low"]),
        (["ask", "--no-"], ["--no-stream", "--no-parallel-tool-calls"]),
        (["--debug", "chat", "--em"], ["--embedded"]),
        (["chat", "--pre"], []),
        (["re"], ["record", "replay"]),
        (["replay", "--ti"], ["--timing"]),
        (["record", "hello.jsonl", "--fo"], ["--force"]),
    ],
)
def test_bash_completes_commands_options_and_choices(
    words: list[str], completed: list[str], capsys: Capture
) -> None:
    assert complete_in_bash(script("bash", capsys), *words) == completed


@needs_bash
def test_bash_completes_files_with_spaces(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "my chat.json").touch()
    for before in (
        ["chat", "--load"],
        ["ask", "--file"],
        ["ask", "--schema"],
        ["replay"],
        ["record", "--force"],
    ):
        found = complete_in_bash(script("bash", capsys), *before, f"{tmp_path}/my")
        assert found == [f"{tmp_path}/my chat.json"]
    assert complete_in_bash(script("bash", capsys), "probe", f"{tmp_path}/my") == []


@needs_fish
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("pr", ["probe"]),
        ("", sorted(COMMANDS)),
        ("serve --p", ["--port"]),
        ("completion ", sorted(SHELLS)),
        ("ask --model ", []),
        ("--debug chat --em", ["--embedded"]),
        ("chat --pre", []),
        ("record hello.jsonl --fo", ["--force"]),
        ("chat --load my", ["my chat.json"]),
        ("ask --record my", ["my chat.json"]),
        ("replay my", ["my chat.json"]),
        ("record --force my", ["my chat.json"]),
        ("probe my", []),
    ],
)
def test_fish_completes_commands_options_choices_and_files(
    line: str, completed: list[str], capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "my chat.json").touch()
    found = complete_in_fish(script("fish", capsys), line, cwd=tmp_path)
    assert sorted(found) == completed


def test_zsh_completes_the_file_of_a_recording(capsys: Capture) -> None:
    options = re.findall(
        r"^_shtab_trio_responses_(record|replay)_options=\((.*?)^\)",
        script("zsh", capsys),
        re.MULTILINE | re.DOTALL,
    )
    assert [command for command, _ in options] == ["record", "replay"]
    for _, specifications in options:
        [of_file] = [
            line
            for line in specifications.splitlines()
            if line.lstrip().startswith('":the recording')
        ]
        assert of_file.endswith(':_files"')
        assert "recording: " not in of_file  # a colon ends the description


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
def test_the_shell_accepts_the_script(shell: str, capsys: Capture) -> None:
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(  # noqa: S603 - our own script
        [program, "-n"],
        input=script(shell, capsys),
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_GUARD,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_another_shell_is_wrong_usage(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["completion", "csh"])
    assert left.value.code == 2
    assert "csh" in capsys.readouterr().err


def test_without_shtab_the_error_names_the_extra(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r'error: .*shtab.*pip install "trio-responses\[cli\]", .*\n', err)
