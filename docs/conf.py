"""The documentation site: `make docs` builds it into build/docs, from pages, docstrings, derivations and figures."""

import re
import shutil
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from toymodel.explore.page import html

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent

project, author, release = "toymodel", "The toymodel authors", installed("toymodel")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = "toymodel"
html_static_path: list[str] = []
exclude_patterns = ["**.ipynb_checkpoints"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "build/notebooks")
nb_execution_raise_on_error = True
nb_execution_timeout = 120
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
suppress_warnings = ["myst.header"]
GENERATED = ("derivations", "gallery.md", "changelog.md", "figures")


def copied(_app: object) -> None:
    """Puts what lies elsewhere beside the pages: the derivations, the figures with their captions, the changes."""
    for name in GENERATED:
        path = HERE / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for path in (ROOT / "derivations").glob("*.[ms][dv]*"):
        (HERE / "derivations").mkdir(exist_ok=True)
        if path.suffix == ".svg":
            shutil.copy(path, HERE / "derivations")
        else:
            (HERE / "derivations" / path.name.replace("README", "index")).write_text(derivation(path))
    text = (ROOT / "CHANGELOG.md").read_text()
    (HERE / "changelog.md").write_text(outside(text))
    (HERE / "gallery.md").write_text(gallery())


def derivation(path: Path) -> str:
    """A page of a derivation, with its script named and a list of contents where it is the index."""
    text = outside(path.read_text())
    if path.stem == "README":
        names = re.findall(r"\]\((\w+)\.md\)", text)
        return text + "\n```{toctree}\n:hidden:\n\n" + "\n".join(dict.fromkeys(names)) + "\n```\n"
    return text


def outside(text: str) -> str:
    """Links to files that are no pages become their names."""
    return re.sub(r"\[([^\]]+)\]\(((?!http)[^)#]+\.(?:py|toml|csv|nc|cff))\)", r"`\2`", text)


def gallery() -> str:
    """Every figure that `make figures` has drawn, with its caption and its script."""
    parts = ["# Gallery", "Each figure is a script, which asserts what its caption says. `make figures` draws them."]
    (HERE / "figures").mkdir(exist_ok=True)
    for script in sorted((ROOT / "figures").glob("*.py")):
        picture, caption = (ROOT / "figures/out" / f"{script.stem}.{kind}" for kind in ("png", "md"))
        parts += [f"## {script.stem}", f"`figures/{script.name}`"]
        if not (picture.exists() and caption.exists()):
            parts.append("This figure is not drawn yet.")
            continue
        shutil.copy(picture, HERE / "figures")
        parts.append(caption.read_text().replace(f"({picture.name})", f"(figures/{picture.name})"))
    return "\n\n".join(parts) + "\n"


SECTIONS = ("Arguments:", "Returns:", "Raises:", "Example:", "Examples:", "Yields:", "Attributes:", "Source:", "Note:")


def plain(_app: object, _what: str, _name: str, _of: object, _options: object, lines: list[str]) -> None:
    """Docstrings are plain text with formulas in the letters of the code: those are shown as they stand."""
    found: list[str] = []
    section = literal = False
    for line in lines:
        at_margin = bool(line.strip()) and not line.startswith(" ")
        if at_margin:
            section = line.strip() in SECTIONS
            if literal:
                found.append("")
            literal = False
        code = line.lstrip().startswith((">>>", "...")) or (literal and not at_margin)
        if not section and not literal and line.startswith("  ") and not code:
            found += ["", "::", ""]
            literal = code = True
        parts = line.split("`")  # every second one is code
        parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
        found.append(line if code else "`".join(parts))
    lines[:] = found


def explorer(app: Any, failed: Exception | None) -> None:
    """The explorer beside the pages, as one file."""
    if failed is None:
        (Path(app.outdir) / "explorer_page.html").write_text(html(), "utf-8")


def setup(app: Any) -> None:
    app.connect("build-finished", explorer)
    app.connect("autodoc-process-docstring", plain, priority=100)
    app.connect("builder-inited", copied)
