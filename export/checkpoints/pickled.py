"""Files of ``torch.save``, read as data by torch's restricted loader: nothing that a file names is imported or called.

Training tools pickle objects of their own beside the weights: logs, settings, paths. torch's loader refuses any name
that it does not know. Each such name is answered by a stand-in, a class that was made here and only takes what it is
given, and the file is read again. Names that only an attack needs are refused, although a stand-in would do no harm.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sfpp.runtime.errors import CheckpointError
from sfpp.runtime.text import first_line

ZIP_MAGIC = b"PK\x03\x04"
RESAVE = (
    "In the program that made it, save the state dictionary alone: torch.save(model.state_dict(), 'weights.pth'), "
    "or safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)
# What training tools write beside the weights: mmengine's log, whose values are numpy arrays and scalars under the old
# or the new name of numpy's core. None of it is worth a line.
_USUAL_NAMES = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.ndarray",
    "numpy.dtype",
)
_MOST_NAMES = 256  # a whole pickled network names about 40
# Modules by which a pickle reaches the machine, and functions that run or load what they are given. mmengine's files
# have builtins.getattr, by which methods are pickled.
_ATTACK_MODULES = re.compile(
    r"_ctypes|_pickle|_posixsubprocess|_socket|_winapi|aiohttp|asyncio|bdb|cProfile|code|codeop|"
    r"commands|ctypes|distutils|doctest|ensurepip|ftplib|http|httplib|idlelib|imaplib|importlib|"
    r"linecache|marshal|msvcrt|nt|ntpath|os|pdb|pickle|pip|pkgutil|poplib|popen2|posix|posixpath|"
    r"profile|pty|pydoc|requests|runpy|setuptools|shelve|shutil|signal|smtplib|socket|socketserver|"
    r"ssl|subprocess|sys|timeit|trace|urllib|urllib2|urllib3|venv|webbrowser|winreg|xmlrpc|"
    r"zipimport"
)
_ATTACK_NAMES = re.compile(
    r"builtins\.(eval|exec|execfile|compile|__import__|open|input|file|apply|breakpoint|globals|locals|vars|setattr|"
    r"delattr|exit|quit|__build_class__)"
    r"|_?operator\.(attrgetter|methodcaller|itemgetter)|types\.(CodeType|FunctionType)|_?io\.(open|open_code|FileIO)"
    r"|codecs\.open|numpy\.(f2py|testing|distutils|load|fromfile|memmap)\b.*"
    r"|torch\.(load|hub|jit|package|utils\.cpp_extension|serialization|_inductor|_dynamo|distributed\.rpc)\b.*"
)


@dataclass(frozen=True)
class Pickled:
    """What a file holds, and the names in it that stand-ins answered, the usual ones left out."""

    content: object
    passed_over: tuple[str, ...]


class _StandIn:
    """Takes the place of an object of a class that is not looked at: keeps its state and does nothing."""

    state: object = None

    def __init__(self, *_arguments: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state


class _MappingStandIn:
    """Takes the place of a class that is a dictionary: what it holds is data that may be looked at."""

    def __new__(cls, *_arguments: object) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """Return an empty dictionary, which the loader fills."""
        return OrderedDict()


class _ListStandIn:
    """Takes the place of a class that is a list."""

    def __new__(cls, *_arguments: object) -> list[Any]:  # type: ignore[misc]
        """Return an empty list, which the loader fills."""
        return []


def read_pickled(path: Path, *, zipped: bool) -> Pickled:
    """Read a file; storages of a ``zipped`` one stay on the disk until they are looked at.

    Raises:
        CheckpointError: damaged, another kind of archive, or a pickle that names what only an attack needs.
    """
    if zipped:
        _check_archive(path)
    stand_ins = {name: _stand_in(name, _StandIn) for name in _USUAL_NAMES}
    while True:
        content, wanted = _attempt(path, stand_ins, zipped=zipped)
        if not wanted:
            return Pickled(content, tuple(sorted(stand_ins.keys() - set(_USUAL_NAMES))))
        stand_ins |= wanted


def items_of(value: object) -> Iterator[tuple[str, object]]:
    """Yield the members of a dictionary by name, or those of a pickled module: its parameters, buffers and modules."""
    if isinstance(value, Mapping):
        yield from ((str(key), member) for key, member in value.items())
    state = value.state if isinstance(value, _StandIn) else None
    if not isinstance(state, Mapping) or not isinstance(state.get("_modules"), Mapping):
        return
    passing = state.get("_non_persistent_buffers_set")
    for kind in ("_parameters", "_buffers", "_modules"):
        members = state.get(kind)
        for key, member in members.items() if isinstance(members, Mapping) else ():
            if kind != "_buffers" or not isinstance(passing, set) or key not in passing:
                yield str(key), member


def is_module(value: object) -> bool:
    """Tell whether a value is a whole pickled module, of which only the state is known."""
    return isinstance(value, _StandIn) and isinstance(value.state, Mapping) and "_modules" in value.state


def _attempt(path: Path, stand_ins: Mapping[str, type], *, zipped: bool) -> tuple[object, dict[str, type]]:
    """Return a file's content, or the stand-ins that reading it still takes."""
    allowed: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = list(stand_ins.values())
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            # torch warns of unusual pickle protocols; whether they load, the error says.
            warnings.simplefilter("ignore")
            # Mapping leaves an optimizer's state, twice the size of the weights, on the disk.
            return torch.load(str(path), map_location="cpu", weights_only=True, mmap=zipped), {}
    except pickle.UnpicklingError as error:
        return None, _wanted(error, stand_ins, path)
    except OSError:
        raise
    except Exception as error:  # damaged bytes surface as almost any exception
        reason = first_line(error).split(". ")[0]
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint, or it is truncated or damaged ({reason}); "
            "copy or download it again, and compare its size with the original"
        ) from error


def _wanted(error: pickle.UnpicklingError, stand_ins: Mapping[str, type], path: Path) -> dict[str, type]:
    """Return the stand-in that torch's message asks for: a new name, or a known one that is filled like a container."""
    reason = str(error)
    if found := re.search(r"GLOBAL (\S+) was not an allowed global", reason):
        name = found[1] if "." in found[1] else f"builtins.{found[1]}"
        refused = _ATTACK_MODULES.fullmatch(name.partition(".")[0]) or _ATTACK_NAMES.fullmatch(name)
        if not refused and name not in stand_ins and len(stand_ins) < _MOST_NAMES and re.fullmatch(r"[\w.]+", name):
            return {name: _stand_in(name, _StandIn)}
    elif found := re.search(r"Can only (SETITEMS?|append|extend)\b.* but got <class '([\w.]+)'>", reason):
        action, name = found[1], found[2]
        kind = {"SETITEM": _MappingStandIn, "SETITEMS": _MappingStandIn}.get(action, _ListStandIn)
        if name in stand_ins and issubclass(stand_ins[name], _StandIn):
            return {name: _stand_in(name, kind)}
    raise _refusal(path, reason) from error


def _stand_in(full_name: str, kind: type) -> type:
    # torch's allow list goes by module and name, which a class may claim freely.
    module, _, name = full_name.rpartition(".")
    return type(name, (kind,), {"__module__": module})


def _refusal(path: Path, reason: str) -> CheckpointError:
    """Return the error for a pickle that torch's restricted loader refused; ``reason`` is torch's message."""
    if found := re.search(r"GLOBAL (\S+)", reason):
        return CheckpointError(
            f"{path} holds a pickle that refers to {found[1]} and would run code when loaded; nothing was executed. "
            f"A checkpoint must hold tensors only. {RESAVE}"
        )
    detail = reason.split("WeightsUnpickler error:")[-1].split("Check the documentation")[0].strip().splitlines()
    return CheckpointError(
        f"{path} is a pickle that cannot be read as plain tensors ({detail[-1] if detail else 'no reason given'}); "
        f"nothing was executed. {RESAVE}"
    )


def _check_archive(path: Path) -> None:
    """Refuse programs that were saved with their weights, whose archives look like a checkpoint's."""
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return  # torch says what is wrong
    if "constants.pkl" in inside and any(name.startswith("code/") for name in inside):
        raise CheckpointError(_program(path, "a TorchScript archive", "torch.jit.load({}, map_location='cpu')"))
    if any(name in inside for name in ("archive_format", "models/model.json", "serialized_exported_program.json")):
        raise CheckpointError(_program(path, "a program of torch.export", "torch.export.load({})"))


def _program(path: Path, what: str, load: str) -> str:
    call = load.format(repr(str(path)))
    return (
        f"{path} is {what}, a network with its code, and sfpp reads weights only. In Python, if you trust the file: "
        f"torch.save({call}.state_dict(), 'weights.pth'); then give weights.pth"
    )
