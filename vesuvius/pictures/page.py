"""The shell of every HTML page: one file, nothing to load, names of the data cannot run."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from typing import Any


def page(title: str, body: str, *, style: str, scripts: Sequence[str] = ()) -> str:
    """Return an HTML document that loads nothing and runs no script but those given.

    A content security policy in the page allows the style and the scripts by their hash, and
    pictures inside of it; whatever else a browser finds in the body stays inert.

    Args:
        title: plain text.
        body: HTML; text from data must have gone through `html.escape` or `inert_json`.
        style: CSS.
        scripts: JavaScript, run at the end of the body.
    """
    policy = (
        f"default-src 'none'; img-src data:; style-src {_allowed([style])}; "
        f"script-src {_allowed(scripts)}; base-uri 'none'; form-action 'none'"
    )
    return "\n".join(
        [
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            "<meta name='viewport' content='width=device-width'>",
            f"<title>{html.escape(title)}</title><style>{style}</style></head><body>",
            body,
            *(f"<script>{script}</script>" for script in scripts),
            "</body></html>",
        ]
    )


def inert_json(value: Any) -> str:
    """Return JSON that is safe inside of a `<script type="application/json">` element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _allowed(texts: Sequence[str]) -> str:
    hashes = (base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts)
    return " ".join(f"'sha256-{digest}'" for digest in hashes) or "'none'"
