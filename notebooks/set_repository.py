"""Tells the notebooks where the repository is: `python notebooks/set_repository.py https://github.com/OWNER/NAME`.

Writes the address into the install cell of every notebook and puts Colab and Kaggle badges under its title. Run it
again with another address, or with '' to take both out. Nothing else names the repository.
"""

import argparse
import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
_SOURCE = re.compile(r'^SOURCE = "[^"]*"', re.MULTILINE)
_BADGES = re.compile(r"\n\n\[!\[Open in Colab\].*$", re.MULTILINE)
_REPOSITORY = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")


def set_repository(notebook: Path, url: str, *, branch: str = "main") -> None:
    """Write the address of the repository ('' = none) into one notebook, atomically."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    title, install = content["cells"][:2]
    head = _BADGES.sub("", "".join(title["source"]), count=1)
    if url:
        first, _, rest = head.partition("\n")
        head = f"{first}\n\n{badges(url, branch, notebook.name)}{rest and chr(10) + rest}"
    title["source"] = head.splitlines(keepends=True)
    source = f'SOURCE = "git+{url}"' if url else 'SOURCE = ""'
    text, count = _SOURCE.subn(source, "".join(install["source"]), count=1)
    if not count:
        raise ValueError(f"{notebook.name}: its second cell sets no SOURCE")
    install["source"] = text.splitlines(keepends=True)
    partial = notebook.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.replace(notebook)


def badges(url: str, branch: str, name: str) -> str:
    """Return the badges of a notebook as Markdown."""
    path = f"{url.removeprefix('https://github.com/')}/blob/{branch}/notebooks/{name}"
    colab = "https://colab.research.google.com"
    return (
        f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/github/{path}) "
        "[![Open in Kaggle](https://kaggle.com/static/images/open-in-kaggle.svg)]"
        f"(https://kaggle.com/kernels/welcome?src=https://github.com/{path})"
    )


def main() -> int:
    """Set the repository of all notebooks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="https://github.com/OWNER/NAME, or '' for none")
    parser.add_argument("--branch", default="main")
    args = parser.parse_args()
    if args.url and not _REPOSITORY.fullmatch(args.url):
        print(f"error: '{args.url}' is no https://github.com/OWNER/NAME", file=sys.stderr)
        return 2
    for notebook in sorted(FOLDER.glob("*.ipynb")):
        set_repository(notebook, args.url, branch=args.branch)
        print(notebook.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
