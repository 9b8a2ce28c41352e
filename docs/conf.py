"""Settings of the documentation site. `docs/site/build.py` (make docs) collects its pages and calls Sphinx."""

import sys
from pathlib import Path

SITE = Path(__file__).resolve().parent / "site"
sys.path.insert(0, str(SITE))

project = "minitorch_unet"
copyright = "the minitorch_unet contributors"
language = "en"
extensions = ["myst_parser", "mathml"]

html_theme = "furo"
html_title = "minitorch_unet"
html_static_path = [str(SITE / "static")]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
maximum_signature_line_length = 160  # with the whole names of types
add_module_names = False
python_use_unqualified_type_names = True  # they are given with their modules, and shown without
templates_path: list[str] = []

# Markdown as on GitHub: the same headings are anchors, dollars are formulas.
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
myst_dmath_allow_space = False
myst_dmath_double_inline = True

# Names in signatures are linked where a page describes them; types of other libraries have no page here.
nitpicky = True
nitpick_ignore_regex = [("py:class", r".*"), ("py:obj", r".*")]
