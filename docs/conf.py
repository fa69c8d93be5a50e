"""Sphinx' settings: `make docs` builds docs/ and the project's own pages into build/docs.

The source folder is the root of the checkout, so that each link between two pages is the same
here and in a browser of the repository. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import docstrings  # noqa: E402
import public_names  # noqa: E402
from docutils import nodes  # noqa: E402
from sphinx import addnodes  # noqa: E402
from sphinx.util import logging  # noqa: E402

import pycoronet  # noqa: E402

project = "pycoronet"
version = release = pycoronet.__version__
html_title = f"pycoronet {version}"

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "docs/**.rst",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "csrc/README.md",
    "examples/**.md",
    "fuzz/README.md",
    "tests/README.md",
]

myst_heading_anchors = 3
highlight_language = "text"  # of what is indented and does not say
smartquotes = False  # "" is an empty string, and no pair of quotation marks
add_module_names = False
autodoc_default_options = {"members": True}
autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the docstrings tell, with units

default_role = "py:obj"

html_theme = "furo"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_static_path = ["site/static"]
html_css_files = ["pycoronet.css"]
html_extra_path = ["site/root"]  # leads from build/docs/index.html to the first page
html_show_sourcelink = False
html_copy_source = False
html_show_copyright = False


def leave_folders(app: Any, doctree: Any) -> None:
    """Make plain text of links to folders, which are for those who look into the repository."""
    page = ROOT / app.env.doc2path(app.env.docname)
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node["reftype"] == "myst" and (page.parent / node["reftarget"]).is_dir():
            node.replace_self(node.children)


def mark_names_of_tests(app: Any, doctree: Any) -> None:
    """Let the style sheet know which words are very long."""
    for node in doctree.findall(nodes.literal):
        if "::" in node.astext():
            node["classes"].append("test-name")


def miss_no_name(app: Any, env: Any) -> None:
    """Warn of what is public and not in the reference."""
    for name in public_names.missing(env.domains["py"].objects):
        logging.getLogger(__name__).warning("the reference lacks %s", name)


def setup(app: Any) -> None:
    """Add what Sphinx does not do by itself."""
    app.connect("autodoc-process-docstring", docstrings.process)
    app.connect("doctree-read", leave_folders)
    app.connect("doctree-read", mark_names_of_tests)
    app.connect("env-check-consistency", miss_no_name)
