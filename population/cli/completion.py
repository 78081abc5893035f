"""`population completion`: text that makes a shell complete commands and options."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping

from population.cli.output import Exit

NAME = "completion"
HELP = "text that makes bash, zsh or fish complete commands: eval it in its start file"
_OPTION = re.compile(r"--[a-z][a-z-]*")
_BASH = """\
_population() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word") $(compgen -f -- "$word"))
}}
complete -o filenames -F _population population
"""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(options: argparse.Namespace) -> int:
    """Print the text."""
    words = _words(options.parsers)
    if options.shell == "fish":
        print("\n".join(_fish(words)))
        return Exit.DONE
    cases = [f'        {name}) words="{" ".join(o)}" ;;' for name, o in words.items()]
    text = _BASH.format(commands=" ".join(words), cases="\n".join(cases))
    if options.shell == "zsh":
        text = f"autoload -U +X bashcompinit && bashcompinit\n{text}"
    print(text, end="")
    return Exit.DONE


def _words(parsers: Mapping[str, argparse.ArgumentParser]) -> dict[str, list[str]]:
    """Return the long options of each command."""
    return {
        name: sorted({*_OPTION.findall(parser.format_usage()), "--help"})
        for name, parser in parsers.items()
    }


def _fish(words: dict[str, list[str]]) -> list[str]:
    """Return the lines for fish."""
    lines = [
        f"complete -c population -n __fish_use_subcommand -a {name}" for name in words
    ]
    for name, options in words.items():
        condition = f"'__fish_seen_subcommand_from {name}'"
        for option in options:
            long = option.removeprefix("--")
            lines.append(f"complete -c population -n {condition} -l {long}")
    return lines
