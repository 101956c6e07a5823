"""The configuration reference: every group, option and key of `conf/`, as Markdown."""

import re
from pathlib import Path

from vesuvius.runtime.config_keys import Option, described, read_options

_COMMAND = re.compile(r"(?:(?<=: )|(?<=^)|(?<=  ))(?:python|vesuvius|pip) .*$")


def config_reference(folder: Path) -> str:
    """Return the page for a folder of configuration groups."""
    options = described(read_options(folder))
    parts = [
        "# Configuration reference\n",
        "Made from `conf/`: every group, its options, every key with its default and its meaning. "
        "`python train.py --info defaults` shows where a value comes from.\n",
    ]
    group = ""
    for option in options:
        if option.group != group:
            group = option.group
            parts.append(f"## {group}\n")
        title = f"`{group}={option.name}`" if group else f"`{option.name}.yaml`"
        parts.append(option_text(option, title, level=3 if group else 2))
    return "\n".join(parts)


def option_text(option: Option, title: str, *, level: int) -> str:
    """Return one option's heading, description and table."""
    lines = [f"{'#' * level} {title}\n"]
    description = header(option.text)
    if description:
        lines.append(description + "\n")
    if option.keys:
        lines += ["| key | value | meaning |", "|---|---|---|"]
        lines += [f"| `{k.path}` | {code(k.value)} | {cell(k.meaning)} |" for k in option.keys]
        lines.append("")
    return "\n".join(lines)


def header(text: str) -> str:
    """Return the comment above the first key; command lines in it become code."""
    words = []
    for line in text.splitlines():
        if line.startswith("#"):
            if "@package" not in line:
                words.append(header_line(line.removeprefix("#").strip()))
        elif line.strip():
            break
    return "  \n".join(words)


def header_line(line: str) -> str:
    """Return one line of a header as Markdown."""
    found = _COMMAND.search(line)
    if found is None or "`" in line:
        return line.replace("<", "&lt;")
    return f"{line[: found.start()].replace('<', '&lt;')}`{found.group()}`"


def code(text: str) -> str:
    """Return a table cell in code style."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def cell(text: str) -> str:
    """Return a table cell's text."""
    return text.replace("|", "\\|").replace("<", "&lt;")
