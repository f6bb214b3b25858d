"""Settings of the documentation site (`make docs`)."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "adapters"), str(ROOT / "recipes")]

from hint_plugins import __version__  # noqa: E402

project = "hint-plugins"
author = "The hint-plugins developers"
copyright = author
version = release = __version__

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_mock_imports = ["fairchem", "cellconstructor", "sscha"]
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

# Pages of other projects are linked when they can be reached; without a network the links are plain text.
intersphinx_mapping: dict[str, tuple[str, None]] = {}

html_theme = "pydata_sphinx_theme"
html_title = f"hint-plugins {release}"
html_static_path = ["_static"]
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": True,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 5,
}
html_context = {"default_mode": "auto"}
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True


def setup(app) -> None:
    """Write the pages that come from the code, and bring the notebooks beside the pages."""
    from generate import write_cli_page, write_options_page

    write_cli_page(HERE / "reference" / "cli.md")
    write_options_page(HERE / "reference" / "options.md")
    target = HERE / "notebooks"
    target.mkdir(exist_ok=True)
    for notebook in sorted((ROOT / "recipes").glob("*.ipynb")):
        shutil.copyfile(notebook, target / notebook.name)
