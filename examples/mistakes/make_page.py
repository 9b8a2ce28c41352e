"""Write docs/mistakes.md from the snippets in this folder and what they print: python examples/mistakes/make_page.py

A snippet's docstring is the text of its section, its first line the heading. A test makes the page again and compares.
"""

import ast
import contextlib
import io
import runpy
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "mistakes.md"

SECTIONS = {
    "Building the network": (
        "block_made_in_forward", "half_the_channels", "pooled_map_as_skip", "lost_row", "channels_last_pictures",
        "whole_image_in_sight",
    ),
    "Labels and losses": (
        "sigmoid_before_logits_loss", "softmax_twice", "labels_of_another_kind", "label_255",
    ),
    "The training loop": (
        "forgotten_zero_grad", "cleared_too_early", "plateau_in_max_mode", "backward_twice", "changed_in_place",
        "data_leaves_the_graph", "forgotten_eval",
    ),
    "Data and judgement": ("field_of_view_as_label", "neighbours_in_validation", "accuracy_of_black"),
}  # fmt: skip

HEAD = """\
# Mistakes, and what the engine says

Each of these can be found in tutorials, or was made by somebody who followed one. The snippets are in
[examples/mistakes](../examples/mistakes/) and run in a second or less; below each stands what it prints. Where a
mistake can be told from an intention, the engine refuses it or warns; where it cannot, the text says what gives it
away. [troubleshooting.md](troubleshooting.md) goes from the symptoms to the causes.
"""


def split(source: str) -> tuple[str, str, str]:
    """(heading, text, code) of a snippet."""
    heading, _, text = (ast.get_docstring(ast.parse(source)) or "").partition("\n")
    return heading, text.strip(), source.split('"""', 2)[2].strip()


def printed(name: str) -> str:
    """What a snippet prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        runpy.run_path(str(HERE / f"{name}.py"))
    return out.getvalue()


def make(outputs: dict[str, str]) -> str:
    """The page's text."""
    parts = [HEAD]
    for section, names in SECTIONS.items():
        parts.append(f"## {section}\n")
        for name in names:
            heading, text, code = split((HERE / f"{name}.py").read_text(encoding="utf-8"))
            parts.append(f"### {heading}\n\n{text}\n\n<!-- ci: skip the tests run {name}.py -->")
            parts[-1] += f"\n```python\n{code}\n```\n\n```text\n{outputs[name]}```\n"
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(make({name: printed(name) for names in SECTIONS.values() for name in names}), encoding="utf-8")
    print(f"wrote {PAGE}")
