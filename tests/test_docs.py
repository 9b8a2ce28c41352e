"""The pages of docs: their Python runs, their links lead somewhere, and the code they point to exists."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "kernels/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)


def readme_blocks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme_blocks", ROOT / ".ci" / "readme_blocks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", [page for page in PAGES if "/" in page])  # README's are run by .ci/run
def test_python_of_pages_runs(page: str) -> None:
    count = readme_blocks().run_page(ROOT / page)
    assert count == (ROOT / page).read_text(encoding="utf-8").count("```python\n")
    assert count > 8 or page not in ("docs/cpu-kernels.md", "docs/cuda-kernels.md")


def test_errors_of_a_page_are_found(tmp_path: Path) -> None:
    """Blocks share their names; what fails is reported with the page's own line."""
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\na = 1\n```\n\n```python\nassert a == 1\nassert a == 2\n```\n")
    with pytest.raises(AssertionError) as caught:
        readme_blocks().run_page(page)
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == (str(page), 9)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Relative links and pictures, and the headings they name."""
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        name, _, heading = target.partition("#")
        found = (ROOT / page).parent / name if name else ROOT / page
        assert found.exists(), f"{page} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, f"{page} links to {target}"


@pytest.mark.parametrize("page", ["docs/cpu-kernels.md", "docs/cuda-kernels.md"])
def test_code_pointed_to_exists(page: str) -> None:
    """Names in the page's last table occur in the file or folder beside them."""
    text = (ROOT / page).read_text(encoding="utf-8")
    rows = re.findall(r"^\| .+ \| (`.+`) in `(.+)` \|$", text, re.MULTILINE)
    assert len(rows) > 8
    for names, place in rows:
        path = ROOT / place
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        source = "\n".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
        for name in re.findall(r"`([^`]+)`", names):
            assert name in source, f"{name} is not in {place}"
