"""What a target of OUTLAST_AGENTS names: an attribute of a module, of a file, or a graph of a ``langgraph.json``."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from outlast.shared.settings import SettingsError, graph_files
from outlast.worker import loops

from . import places, project


def find(name: str, target: str) -> object:
    """Return what an agent's target names. Raises SettingsError, which says what is wrong."""
    place, _, attribute = target.rpartition(":")
    if graph_files.is_graph_file(place):
        return _find_graph(name, place, attribute)
    found: object = _module(name, place)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise SettingsError(f"Agent {name}: {place} has no attribute {attribute!r}{_meant(found, part)}")
        found = getattr(found, part)
    return found


def _meant(found: object, attribute: str) -> str:
    close = difflib.get_close_matches(attribute, dir(found), n=1)
    file = getattr(found, "__file__", None)
    return (f"; is {close[0]!r} meant?" if close else "") + (f" ({file})" if file else "")


def _find_graph(name: str, file: str, graph: str) -> object:
    try:
        target = graph_files.target_of(file, graph)
    except ValueError as error:
        raise SettingsError(f"Agent {name}: {error}") from None
    project.enter(file)
    place, _, attribute = target.rpartition(":")
    return find(name, f"{os.path.join(os.path.dirname(file), place)}:{attribute}" if _is_path(place) else target)


def _is_path(place: str) -> bool:
    return "/" in place or os.sep in place or place.endswith(".py")


def _module(name: str, place: str) -> ModuleType:
    """Import a module by its name, or a file as the module that it is in its package."""
    if not _is_path(place):
        return _imported(name, place, Path.cwd())
    file = Path(place).resolve()
    if file.suffix != ".py":
        raise SettingsError(f"Agent {name}: {place} is not a file of Python")
    if not file.is_file():
        raise SettingsError(f"Agent {name}: there is no file {place} (looked in {os.getcwd()})")
    root = _root(file)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    if "." in module:
        return _of_package(name, place, module, file)
    known = sys.modules.get(module)
    spec = getattr(known, "__spec__", None) if known else importlib.util.find_spec(module)
    if spec is not None and spec.origin is not None and Path(spec.origin).resolve() == file:
        return _imported(name, module, file.parent)
    return _alone(name, place, file)  # another module has its name


def _root(file: Path) -> Path:
    """Return the folder that the package of a file is imported from; of a file without a package its own."""
    folder = file.parent
    while (folder / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _of_package(name: str, place: str, module: str, file: Path) -> ModuleType:
    found = _imported(name, module, file.parent)
    if Path(found.__file__ or "").resolve() != file:
        raise SettingsError(f"Agent {name}: {place} is {module}, and another {module} comes first: {found.__file__}")
    return found


def _alone(name: str, place: str, file: Path) -> ModuleType:
    module = "_".join(("outlast_agent", *file.with_suffix("").parts[1:])).replace(".", "_")
    if module in sys.modules:
        return sys.modules[module]
    spec = importlib.util.spec_from_file_location(module, file)
    assert spec is not None and spec.loader is not None, "a file of Python has a loader"
    sys.modules[module] = made = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(made)
    except (Exception, SystemExit) as error:
        del sys.modules[module]
        raise _told(name, place, error, file.parent) from error
    return made


def _imported(name: str, module: str, folder: Path) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise SettingsError(
                f"Agent {name}: there is no module {error.name!r} (looked in {os.getcwd()} and on PYTHONPATH)"
            ) from None
        raise _told(name, module, error, folder) from error
    except (Exception, SystemExit) as error:
        raise _told(name, module, error, folder) from error


def _told(name: str, place: str, error: BaseException, folder: Path) -> SettingsError:
    return SettingsError(f"{_failed(name, place, error, folder).message}{places.place_of(error)}")


def _failed(name: str, place: str, error: BaseException, folder: Path) -> SettingsError:
    if not isinstance(error, ModuleNotFoundError):
        raised = f"{type(error).__name__}: {error}{loops.advice(error)}"
        return SettingsError(f"Agent {name}: importing {place} raised {raised}")
    missing = project.needed_by(folder)
    listed = f"; its project lists packages that are not installed: {', '.join(missing)}" if missing else ""
    return SettingsError(f"Agent {name}: importing {place} failed: {error}{listed}")
