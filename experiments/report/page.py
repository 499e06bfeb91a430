"""The page from its contents: templates, script and style in one file that asks nothing of any server."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.claims.wording import in_short, numbers
from experiments.report.contents import Contents

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).parent / "templates"


def render(contents: Contents) -> str:
    """Return the page as HTML.

    All text is escaped. What is more, the page's own policy lets no script run but its own three, and lets nothing be
    fetched from anywhere.
    """
    from experiments.volumes.interactive import plotly_js, turntable_js

    scripts = (plotly_js(), turntable_js(), (TEMPLATES / "page.js").read_text(encoding="utf-8"))
    return template(TEMPLATES / "page.html.j2", numbers=numbers, in_short=in_short).render(
        contents=contents,
        policy=policy(*scripts),
        scripts=scripts,
        style=(TEMPLATES / "page.css").read_text(encoding="utf-8"),
    )


def template(path: Path, **filters: Callable[..., str]) -> "Template":
    """Return a template that escapes all text and refuses names that nobody has set, with further filters."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(path.name)


def policy(*scripts: str) -> str:
    """Return a content security policy that admits some inline scripts, by their hash, and no network."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
