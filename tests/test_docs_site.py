"""The documentation site: what is cheap to check without building it. `make docs` builds it and follows all links."""

import inspect
import re
import runpy
from pathlib import Path

import pytest
from docs_site import ROOT, SITE, load

from minitorch_unet import functional as F

functions, modules, links, lessons, stage = (
    load(name) for name in ("functions", "modules", "links", "lessons", "stage")
)
sources = load("sources")

HEADINGS = ["Formula", "Shapes", "Gradient", "Kept for the backward pass", "Cost", "Errors", "Where it is written"]


def test_settings_can_be_read() -> None:
    settings = runpy.run_path(str(ROOT / "docs" / "conf.py"))
    assert settings["nitpicky"] and settings["html_math_renderer"] == "mathml"
    assert (SITE / "static" / settings["html_css_files"][0]).is_file()


@pytest.mark.parametrize("name", sorted(F.__all__))
def test_every_function_has_a_whole_page(name: str) -> None:
    page = functions.page(name, sources.Sources())
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == HEADINGS
    for section in re.split(r"^## .+$", page, flags=re.MULTILINE)[1:]:
        assert section.strip()
    assert f"minitorch_unet.functional.{name}(" in page
    assert f"[`{name}`]({name}.md)" in functions.index()
    assert f"\n{name}\n" in functions.index().partition("```\n")[0]  # in the navigation


def test_pages_point_to_code() -> None:
    """Operations, array routines and kernels of a convolution, with the lines on which they begin."""
    page = functions.page("conv2d", sources.Sources())
    line = inspect.getsourcelines(functions.Kernels.conv2d)[1]
    assert f'sources/minitorch_unet/backend/reference-py.html#line-{line}">' in page
    for name in (
        "operation `Conv2d`",
        "routine `conv2d_weight_grad`",
        "kernels/cpu/winograd.h",
        "kernels/cuda/conv_mma.cu",
    ):
        assert name in page


def test_every_kernel_is_pointed_to() -> None:
    """All files that compute something; those that others include, and the optimisers', are not for a function."""
    shown = {f"cpu/{file}" for cpu, _ in functions.KERNELS.values() for file in cpu}
    shown |= {f"cuda/{file}" for _, cuda in functions.KERNELS.values() for file in cuda}
    there = {f"cuda/{path.name}" for path in (ROOT / "kernels" / "cuda").glob("*.cu")} - {"cuda/optim.cu"}
    parts = {"interface", "parallel", "products", "shapes", "simd"}
    there |= {f"cpu/{path.name}" for path in (ROOT / "kernels" / "cpu").glob("*.h") if path.stem not in parts}
    assert shown == there


def test_every_module_has_a_page() -> None:
    found = modules.pages()
    rooms = {path.stem for path in (ROOT / "minitorch_unet").iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms = {room for room in rooms if not room.startswith("_") and room != "build"}
    assert set(found) | modules.WITHOUT_PAGE >= rooms
    for name, listed in found.items():
        text = modules.page(name, listed, sources.Sources())
        for module in listed:
            for thing in modules.public(module):
                assert inspect.getdoc(getattr(module, thing)), f"{module.__name__}.{thing} has no docstring"
                assert f"{module.__name__}.{thing}(" in text


def test_every_page_is_in_the_navigation() -> None:
    """docs/index.md lists each page of docs once (lessons by a pattern), and nothing that does not exist."""
    listed = []
    for block in re.findall(r"```\{toctree\}\n(.*?)```", (ROOT / "docs" / "index.md").read_text(), re.DOTALL):
        listed += [line for line in block.splitlines() if line and not line.startswith(":")]
    pages = {name.removesuffix(".md") for name in stage.staged_pages().values() if "/" not in name} - {"index"}
    assert sorted(listed) == sorted(pages | {"course/*", "reference/functional/index", "reference/index"})


def test_links_are_rewritten() -> None:
    shown = sources.Sources()
    pages = {"docs/a.md": "a.md", "kernels/README.md": "kernels.md"}
    text = (
        "[k](../kernels/README.md#layer) [s](../kernels/cuda/pool.cu) [f](../examples) `[c](x)`\n```\n[n](no.md)\n```"
    )
    made = stage.rewritten(text, "docs/a.md", pages, shown)
    shows = '<a href="sources/kernels/cuda/pool-cu.html">s</a>'
    assert made == f"[k](kernels.md#layer) {shows} f `[c](x)`\n```\n[n](no.md)\n```"
    assert shown.wanted == {"kernels/cuda/pool.cu"}
    with pytest.raises(ValueError, match=r"docs/a\.md links to no\.md"):
        stage.rewritten("[n](no.md)", "docs/a.md", pages, shown)


def test_bad_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<a href="https://example.org">4</a><script src="https://example.org/x.js"></script><a href="#top">5</a>'
        '<link rel="stylesheet" href="//example.org/x.css">'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    (tmp_path / "s.css").write_text('@import "https://example.org/y.css"; p { background: url(picture.png); }')
    assert links.check(tmp_path) == [
        "a.html links to b.html#gone, which has no such place",
        "a.html links to c.html, which does not exist",
        "a.html loads https://example.org/x.js",
        "a.html loads //example.org/x.css",
        "s.css loads https://example.org/y.css",
    ]


def test_output_of_a_lesson_becomes_text_and_pictures() -> None:
    made = lessons.output("loss 1\nfigure: somewhere/04_patches.png\nloss 2\n")
    assert [line for line in made.splitlines() if line] == [
        "```{code-block} text", ":class: output", "loss 1", "```", "![04_patches](04_patches.png)",
        "```{code-block} text", ":class: output", "loss 2", "```",
    ]  # fmt: skip
    assert lessons.output("") == ""


def test_prose_of_docstrings_means_itself() -> None:
    assert sources.plain("a*b_c <x> `k*_`") == r"a\*b\_c \<x\> `k*_`"
