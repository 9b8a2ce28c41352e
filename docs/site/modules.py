"""Pages for everything else that is public: one for each module or folder of the package, from its docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import sys
from dataclasses import is_dataclass
from functools import cache
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
        found[info.name] = [module, *(importlib.import_module(name) for name in modules_inside(module))]
    return dict(sorted(found.items(), key=lambda item: (ORDER.index(item[0]) if item[0] in ORDER else 99, item[0])))


def modules_inside(module: ModuleType) -> list[str]:
    """The names of modules that are shown on the page of the folder that holds them."""
    if not hasattr(module, "__path__") or (hasattr(module, "__all__") and module.__name__ != "minitorch_unet.ops"):
        return []
    names = [m.name for m in pkgutil.iter_modules(module.__path__) if not m.name.startswith("_")]
    return [f"{module.__name__}.{name}" for name in names]


@cache
def places() -> dict[type, str]:
    """Where pages describe each class: its name with that of a module before it."""
    listed = [module for modules in pages().values() for module in modules]
    named = {getattr(module, name): f"{module.__name__}.{name}" for module in listed for name in public(module)}
    return {thing: name for thing, name in named.items() if inspect.isclass(thing)}


def public(module: ModuleType) -> list[str]:
    """The public classes and functions of a module; not those that it takes over from another page's."""
    names = getattr(module, "__all__", None) or [
        name for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]  # fmt: skip
    values = {name: getattr(module, name) for name in names}
    inside = modules_inside(module)  # which describe their own
    return [
        name for name, value in values.items()
        if described_there(value) and home(value) == home(module) and value.__module__ not in inside
    ]  # fmt: skip


def taken_over(module: ModuleType) -> dict[str, list[str]]:
    """Names in `__all__` that another page describes, by that page."""
    found: dict[str, list[str]] = {}
    for name in getattr(module, "__all__", ()):
        value = getattr(module, name)
        if described_there(value) and home(value) not in (home(module), "functional"):
            found.setdefault(home(value), []).append(name)
    return found


def described_there(value: Any) -> bool:
    """Whether pages describe such a thing: a class or function of the package."""
    known = inspect.isclass(value) or inspect.isfunction(value)
    return known and value.__module__.startswith("minitorch_unet")


def home(thing: Any) -> str:
    """The page that describes a thing: the first part of its module's name within the package."""
    name = thing.__name__ if inspect.ismodule(thing) else thing.__module__
    return f"{name}.".split(".")[1]


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
    names = vars(sys.modules[thing.__module__])

    def full(match: re.Match[str]) -> str:
        value = names.get(match[0])
        return places().get(value, match[0]) if inspect.isclass(value) else match[0]

    text = re.sub(r"""(?<![\w.'"])[A-Z]\w+(?![\w'"(])""", full, text)
    return re.sub(r"^\(self(?:, )?", "(", text).replace("\n", " ")


def described(module: ModuleType, name: str) -> str:
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
        for other, taken in taken_over(module).items():
            listed = ", ".join(f"`{n}`" for n in taken)
            text.append(f"From [{other}]({other}.md), and found here, too: {listed}.\n")
        if names:
            place = path.resolve().relative_to(Path(minitorch_unet.__file__).resolve().parents[1]).as_posix()
            text += [f"Source: {sources.link(place, up='../')}\n", *(described(module, n) for n in names)]
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
