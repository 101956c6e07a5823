"""mkdocs hook: the configuration reference is made from conf/ at every build."""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from vesuvius.runtime.config_reference import config_reference


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page to the site's files."""
    folder = Path(config.config_file_path).parent / "conf"
    page = config_reference(folder)
    files.append(File.generated(config, "configuration-reference.md", content=page))
    return files
