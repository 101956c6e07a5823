"""Every message that `vesuvius` raises, read from its source."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERBS = (
    "add|apply|bring|call|change|check|choose|compute|convert|copy|correct|create|crop|"
    "delete|divide|drop|end|export|fetch|free|give|import|increase|install|keep|leave|let|"
    "list|load|look|lower|make|mark|measure|name|pad|pass|predict|prepare|put|raise|reduce|"
    "remove|rename|repeat|replace|report|resample|retry|run|save|say|scale|see|select|set|"
    "shorten|show|split|start|switch|take|train|try|unpack|upload|use|wait|write"
)
ADVICE = re.compile(
    rf"expected|must|needs?\b|takes?\b|pip install|(^|[.;:,?(!] |\bor |\band )({VERBS})\b"
    r"|\((--)?[a-z_]{3,}([, .]+(--)?[a-z_]+)*\)"  # names the option: (split_file), (--scrolls)
    r"|expects|\bonly\b|(it|run|network) (has|holds)|knows|steps are|got \{|`vesuvius|e\.g\. '",
    re.IGNORECASE,
)


def error_classes():
    """Return the names of the classes in errors.py."""
    tree = ast.parse((ROOT / "vesuvius" / "errors.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def template(node):
    """Return a message's text with {} for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) for part in node.values)
    if isinstance(node, ast.BinOp):
        return template(node.left) + template(node.right)
    return "{}"


def raised(folder=ROOT / "vesuvius"):
    """Return (class, message, place) of every `raise` of an error class with a text of its own."""
    names, found = set(error_classes()), []
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)):
                continue
            name = getattr(node.exc.func, "id", "")
            text = template(node.exc.args[0]) if node.exc.args else ""
            if name in names and re.search(r"[a-z]{3}", text):
                found.append((name, text, f"{path.relative_to(ROOT)}:{node.lineno}"))
    return found
