"""mkdocs hooks: the configuration reference is made from conf/, names of pages become links."""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from vesuvius.runtime.config_reference import config_reference

_PAGE = re.compile(r"(?<![\w/`\[])(?<!\]\()docs/([\w-]+)\.md(?!`)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the configuration reference to the site's files."""
    folder = Path(config.config_file_path).parent / "conf"
    page = config_reference(folder)
    files.append(File.generated(config, "configuration-reference.md", content=page))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Link `docs/name.md`, as comments and pages write it; a missing page fails the build."""
    return _PAGE.sub(r"[\1](\1.md)", markdown)
