"""The keys of `conf/` and what they mean.

A key's meaning is the comment behind it. Without one it is the argument's description in the
docstring of the class that gets it, and without that what the key means in the options that this
one is composed with: those of its own defaults list first, then those of `train.yaml`.
"""

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object

_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w./@+-]+):(?P<rest>.*)$")
_ARGUMENT = re.compile(r"^(?P<names>\w+(?:, \w+)*)(?: ?\((?:[^()]|\([^()]*\))*\))?: (?P<text>.*)$")
_SENTENCE = re.compile(r"^.*?[.](?=\s|$)")


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

    @property
    def package(self) -> str:
        """Return where the option's keys lie in the composed configuration."""
        return "" if "@package _global_" in self.text else self.group.replace("/", ".")

    def full(self, key: Key) -> str:
        """Return the key's path in the composed configuration."""
        return f"{self.package}.{key.path}".lstrip(".")


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
    """Fill in what an option leaves unsaid from the options it is composed with."""
    index = {(option.group, option.name): option for option in options}
    entry = index.get(("", "train"))
    common = meanings(composed_of(entry, index)) if entry else {}

    def filled(option: Option) -> Option:
        known = common | meanings(composed_of(option, index)) if missing(option) else {}
        return replace(option, keys=tuple(with_meaning(option, key, known) for key in option.keys))

    return [filled(option) for option in options]


def missing(option: Option) -> bool:
    """Return whether any key of an option says nothing of itself."""
    return not all(key.meaning for key in option.keys)


def with_meaning(option: Option, key: Key, known: Mapping[str, str]) -> Key:
    """Return the key with the meaning known of its full path, if it has none."""
    meaning = key.meaning or known.get(option.full(key), "")
    return replace(key, meaning=meaning or ("switched off" if key.value == "null" else ""))


def meanings(parts: Iterable[tuple[str, Option]]) -> dict[str, str]:
    """Return full path -> meaning of (package, option); of several the first that says it."""
    found: dict[str, str] = {}
    for package, option in parts:
        for key in option.keys:
            if key.meaning:
                found.setdefault(f"{package}.{key.path}".lstrip("."), key.meaning)
    return found


def composed_of(
    option: Option, index: Mapping[tuple[str, str], Option], package: str | None = None
) -> Iterator[tuple[str, Option]]:
    """Yield (package, option) of an option and of its defaults list, theirs included."""
    package = option.package if package is None else package
    yield package, option
    for group, name, inner in defaults(option):
        part = index.get((group, name))
        if part is not None and part is not option:
            place = f"{package}.{inner}".lstrip(".") if inner else None
            yield from composed_of(part, index, place)


def defaults(option: Option) -> Iterator[tuple[str, str, str]]:
    """Yield (group, name, package) of the entries of an option's defaults list; '' = its own."""
    content = yaml.safe_load(option.text) or {}
    for entry in content.get("defaults", ()):
        pairs = entry.items() if isinstance(entry, Mapping) else [("", entry)]
        for group, names in pairs:
            for name in names if isinstance(names, list) else [names]:
                if name not in ("_self_", None):
                    yield located(option.group, str(group), str(name))


def located(own_group: str, group: str, name: str) -> tuple[str, str, str]:
    """Return (group, name, package) of a defaults entry written in an option of `own_group`.

    A leading slash starts at `conf/`, everything else is relative; `override` and `optional`
    change nothing.
    """
    path, _, package = (f"{group.split()[-1]}/{name}" if group else name).partition("@")
    absolute = path if path.startswith("/") else f"{own_group}/{path}"
    parent, _, last = absolute.lstrip("/").rpartition("/")
    return parent, last, package


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
    """Return what the docstrings of a class and its bases, or of a function, say of arguments.

    Of other packages' texts only the first sentence. A target whose package is not installed, or
    which says nothing, gives an empty mapping.
    """
    try:
        documented: Any = get_object(target)
    except (ImportError, ValueError):
        return {}
    found: dict[str, str] = {}
    for one in inspect.getmro(documented) if inspect.isclass(documented) else (documented,):
        own = one.__module__.startswith("vesuvius.")
        for text in (one.__doc__, getattr(getattr(one, "__init__", None), "__doc__", None)):
            for name, meaning in documented_arguments(inspect.cleandoc(text or "")).items():
                if not meaning.startswith("see "):  # a base class says it
                    found.setdefault(name, meaning if own else first_sentence(meaning))
    return found


def documented_arguments(text: str) -> dict[str, str]:
    """Return argument -> description of a docstring's section `Args`."""
    _, _, section = text.partition("Args:\n")
    entries: list[str] = []
    depth = 0
    for line in section.splitlines():
        indent = len(line) - len(line.lstrip())
        if line.strip() and not indent:
            break
        depth = depth or indent
        if indent == depth:
            entries.append(line.strip())
        elif line.strip() and entries:
            entries[-1] += f" {line.strip()}"
    found: dict[str, str] = {}
    for entry in entries:
        match = _ARGUMENT.match(entry)
        if match:
            found |= dict.fromkeys(match["names"].split(", "), match["text"].strip())
    return found


def first_sentence(text: str) -> str:
    """Return the first sentence of another package's description, without its markup."""
    found = _SENTENCE.match(text)
    return (found.group() if found else text).replace("``", "'")
