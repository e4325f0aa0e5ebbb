"""How Sphinx builds these pages: `sphinx-build -W -n docs build/docs`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # _generate.py

import _generate

_generate.write(Path(__file__).parent / "reference")

project = "psfmatch"
author = "The psfmatch developers"
copyright = "The psfmatch developers, BSD-3-Clause"
version = release = installed("psfmatch")

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
]
templates_path = ["_templates"]
exclude_patterns = ["build", "_build", "data"]
root_doc = "index"

html_theme = "furo"
html_title = f"psfmatch {version}"
html_show_sourcelink = False

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

autodoc_typehints = "none"  # the docstrings say more than the annotations
autodoc_member_order = "bysource"
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

linkcheck_timeout = 20
linkcheck_ignore = [r"https://ui\.adsabs\.harvard\.edu/.*"]  # asks who is there before it answers
