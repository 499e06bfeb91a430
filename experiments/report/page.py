"""The page from its contents: templates, script and style in one file that asks nothing of any server."""

import base64
import hashlib
from pathlib import Path

from experiments.report.contents import Contents
from experiments.verdicts import in_short, numbers

TEMPLATES = Path(__file__).parent / "templates"


def render(contents: Contents) -> str:
    """Return the page as HTML.

    All text is escaped. What is more, the page's own policy lets no script run but its own three, and lets nothing be
    fetched from anywhere.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from experiments.turntable import plotly_js, turntable_js

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(numbers=numbers, in_short=in_short)
    scripts = (plotly_js(), turntable_js(), (TEMPLATES / "page.js").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(
        contents=contents,
        policy=policy(*scripts),
        scripts=scripts,
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def policy(*scripts: str) -> str:
    """Return a content security policy that admits some inline scripts, by their hash, and no network."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
