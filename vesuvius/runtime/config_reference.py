"""The configuration reference: every group, option and key of `conf/`, as Markdown.

A key's meaning is the comment behind it; where there is none, the argument's description in the
docstring of the class that gets it.
"""

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra.utils import get_object

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w./@+-]+):(?P<rest>.*)$")
_ARGUMENT = re.compile(r"^(?P<indent>\s+)(?P<names>\w+(?:, \w+)*)(?: ?\([^)]*\))?: (?P<text>.*)$")


@dataclass(frozen=True, slots=True)
class Key:
    """One key of an option: its dotted path, its value as written, what it means."""

    path: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Option:
    """One YAML file: its group ('' for the entry points), its name, its text and its keys."""

    group: str
    name: str
    text: str
    keys: tuple[Key, ...]

    def full(self, key: Key) -> str:
        """Return the key's path in the composed configuration."""
        package = "" if "@package _global_" in self.text else self.group.replace("/", ".")
        return f"{package}.{key.path}".lstrip(".")


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


def read_options(folder: Path) -> list[Option]:
    """Return all options, the entry points first."""
    found = []
    for path in sorted(folder.rglob("*.yaml"), key=lambda p: (p.parent != folder, p)):
        group = path.parent.relative_to(folder).as_posix().removeprefix(".")
        if path.parent.name != "local":
            text = path.read_text(encoding="utf-8")
            found.append(Option(group, path.stem, text, tuple(option_keys(text))))
    return found


def described(options: Sequence[Option]) -> list[Option]:
    """Fill in what an option leaves unsaid: a key means what it means where it is first defined.

    Looked up by its full path, then by its name within the group.
    """
    by_path: dict[str, str] = {}
    by_name: dict[tuple[str, str], str] = {}
    for option in options:
        for key in option.keys:
            if key.meaning:
                by_path.setdefault(option.full(key), key.meaning)
                by_name.setdefault((group_of(option, key), last(key.path)), key.meaning)

    def meaning(option: Option, key: Key) -> str:
        name = group_of(option, key), last(key.path)
        known = key.meaning or by_path.get(option.full(key)) or by_name.get(name, "")
        return known or ("switched off" if key.value == "null" else "")

    return [
        replace(o, keys=tuple(replace(k, meaning=meaning(o, k)) for k in o.keys)) for o in options
    ]


def group_of(option: Option, key: Key) -> str:
    """Return the group that a key belongs to: of an experiment's keys the first part."""
    full = option.full(key)
    return "loss.term" if full.startswith("loss.term.") else full.split(".")[0]


def last(path: str) -> str:
    """Return the last part of a dotted path."""
    return path.rsplit(".", 1)[-1]


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
    """Return the comment above the first key; command lines in it stay lines of their own."""
    words = []
    for line in text.splitlines():
        if line.startswith("#"):
            if "@package" not in line:
                words.append(line.removeprefix("#").strip())
        elif line.strip():
            break
    return "  \n".join(words)


def option_keys(text: str) -> Iterator[Key]:
    """Yield the keys of a YAML file in order, without defaults lists and Hydra's own."""
    documented: dict[str, dict[str, str]] = {}
    parents: list[tuple[int, str]] = []
    skipped_indent: int | None = None
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        indent = len(found["indent"])
        if skipped_indent is not None and indent > skipped_indent:
            continue
        skipped_indent = indent if found["key"] == "defaults" else None
        while parents and parents[-1][0] >= indent:
            parents.pop()
        prefix = ".".join(key for _, key in parents)
        value, _, comment = found["rest"].partition(" #")
        value, comment = value.strip(), comment.strip()
        if found["key"] == "_target_":
            documented[prefix] = arguments(value)
        elif found["key"] not in ("defaults", "_partial_", "_convert_"):
            path = f"{prefix}.{found['key']}".lstrip(".")
            if value:
                yield Key(path, value, comment or documented.get(prefix, {}).get(found["key"], ""))
            elif comment:
                yield Key(path, "", comment)
        parents.append((indent, found["key"]))


def arguments(target: str) -> dict[str, str]:
    """Return what the docstring of a class or function says of its arguments.

    A target whose package is not installed, or which says nothing, gives an empty mapping.
    """
    try:
        documented = get_object(target)
    except (ImportError, ValueError):
        return {}
    text = (inspect.getdoc(documented) or "") + "\n" + (
        inspect.getdoc(getattr(documented, "__init__", None)) or ""
    )  # fmt: skip
    _, _, section = text.partition("Args:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    depth = None
    for line in section.splitlines():
        if line.strip() and not line.startswith(" "):
            break
        match = _ARGUMENT.match(line)
        if match and depth in (None, len(match["indent"])):
            depth = len(match["indent"])
            names = match["names"].split(", ")
            found |= dict.fromkeys(names, match["text"].strip())
        elif line.strip() and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found


def code(text: str) -> str:
    """Return a table cell in code style."""
    return f"`{text.replace('|', chr(92) + '|')}`" if text else ""


def cell(text: str) -> str:
    """Return a table cell's text."""
    return text.replace("|", "\\|").replace("<", "&lt;")
