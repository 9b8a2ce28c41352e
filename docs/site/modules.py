"""Pages for everything else that is public: one for each module or folder of the package, from its docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from dataclasses import is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sources import Sources, plain

import minitorch_unet

# First what most people need; what is not named here follows in alphabetical order.
ORDER = (
    "tensor", "nn", "unet", "optim", "schedules", "data", "metrics", "instances", "train", "predict", "testing", "amp",
)  # fmt: skip
# `functional` has its own pages; the others are started by name and hold nothing to import.
WITHOUT_PAGE = {"functional", "kernels", "__main__", "_cpu_kernels"}


def pages() -> dict[str, list[ModuleType]]:
    """For each page the modules on it: a folder without `__all__` brings those inside it along."""
    found: dict[str, list[ModuleType]] = {}
    for info in pkgutil.iter_modules(minitorch_unet.__path__):
        if info.name in WITHOUT_PAGE:
            continue
        module = importlib.import_module(f"minitorch_unet.{info.name}")
        found[info.name] = [module]
        if info.ispkg and (not hasattr(module, "__all__") or info.name == "ops"):
            inside = [m.name for m in pkgutil.iter_modules(module.__path__) if not m.name.startswith("_")]
            found[info.name] += [importlib.import_module(f"{module.__name__}.{name}") for name in inside]
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else 99, item[0])))


def public(module: ModuleType) -> list[str]:
    """The public names of a module that have a docstring of their own: classes and functions."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]  # fmt: skip
    values = {name: getattr(module, name) for name in names}
    return [name for name, value in values.items() if inspect.isclass(value) or inspect.isfunction(value)]


def members(cls: type) -> list[tuple[str, Any]]:
    """The public methods and properties that a class defines itself, with its own docstrings."""
    found = []
    for name, value in vars(cls).items():
        value = value.__func__ if isinstance(value, staticmethod | classmethod) else value
        if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)) and value.__doc__:
            found.append((name, value))
    return found


def prose(thing: Any) -> str:
    """A docstring as Markdown; blocks of examples stay as they are."""
    blocks = []
    for block in re.split(r"\n\s*\n", inspect.getdoc(thing) or ""):
        indented = all(line.startswith("    ") for line in block.splitlines())
        blocks.append(f"```python\n{inspect.cleandoc(block)}\n```" if indented and block else plain(block))
    return "\n\n".join(blocks)


def signature(thing: Any) -> str:
    """The signature in one line, without what Sphinx cannot read."""
    try:
        text = str(inspect.signature(thing))
    except ValueError:
        return "()"
    text = re.sub(r"<(?:function|class) '?([\w.]+?)'?(?: at 0x[0-9a-f]+)?>", r"\1", text)
    text = re.sub(r"<factory>", "...", text)
    text = re.sub(r"<([\w.]+)[^<>]*>", r"\1", text)
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations stay text until somebody asks for them
    return re.sub(r"^\(self(?:, )?", "(", text).replace("\n", " ")


def described(module: ModuleType, name: str, sources: Sources) -> str:
    """The Markdown of one class or function."""
    thing = getattr(module, name)
    if inspect.isfunction(thing):
        return f"```{{py:function}} {module.__name__}.{name}{signature(thing)}\n\n{prose(thing)}\n```\n"
    text = [f"````{{py:class}} {module.__name__}.{name}{signature(thing)}\n\n{own_prose(thing)}\n"]
    for member, value in members(thing):
        if isinstance(value, property):
            text.append(f"```{{py:property}} {member}\n\n{prose(value)}\n```\n")
        else:
            text.append(f"```{{py:method}} {member}{signature(value)}\n\n{prose(value)}\n```\n")
    return "\n".join([*text, "````\n"])


def own_prose(cls: type) -> str:
    """A class's docstring; none where a dataclass or tuple would only repeat its signature."""
    made_up = is_dataclass(cls) and (cls.__doc__ or "").startswith(f"{cls.__name__}(")
    return "" if made_up or not cls.__doc__ else prose(cls)


def page(name: str, modules: list[ModuleType], sources: Sources) -> str:
    """The Markdown of a page."""
    text = [f"# {name}\n", prose(modules[0]), ""]
    for module in modules:
        path = Path(inspect.getsourcefile(module) or "")
        names = public(module)
        if len(modules) > 1 and module is not modules[0] and names:
            text += [f"## {module.__name__.rpartition('.')[2]}\n", prose(module), ""]
        if names:
            place = path.resolve().relative_to(Path(minitorch_unet.__file__).resolve().parents[1]).as_posix()
            text += [f"Source: {sources.link(place, up='../')}\n", *(described(module, n, sources) for n in names)]
    return "\n".join(text)


def write(stage: Path, sources: Sources) -> None:
    """Write all pages and their index into the folder `stage`."""
    folder = stage / "reference"
    folder.mkdir(parents=True, exist_ok=True)
    found = pages()
    rows = []
    for name, modules in found.items():
        (folder / f"{name}.md").write_text(page(name, modules, sources), encoding="utf-8")
        first = (modules[0].__doc__ or "").strip().partition("\n")[0]
        rows.append(f"| [`{name}`]({name}.md) | {plain(first)} |")
    listed = "\n".join(["| module | what |", "|---|---|", *rows])
    names = "\n".join(found)
    (folder / "index.md").write_text(
        f"# Modules\n\nEverything else that can be imported, from the docstrings.\n\n{listed}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{names}\n```\n",
        encoding="utf-8",
    )
