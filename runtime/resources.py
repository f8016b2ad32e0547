"""What this process may use of the machine: cores and memory, as far as a container and the shell's limits leave them.

Linux tells it in ``/proc`` and, of containers, in the files of control groups, versions 1 and 2
(https://docs.kernel.org/admin-guide/cgroup-v2.html). Elsewhere only the machine itself is seen.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfpp.runtime.errors import MemoryShortageError

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")
_KIB = 1024

# Limit, use, and what of the use the kernel gives back when asked: in version 2, then in version 1.
_MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
_QUOTA_FILES = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
# Limits of a process by their names in the module resource, the lines of /proc/self/status that count towards them, and
# how they are set.
_PROCESS_LIMITS = (("RLIMIT_AS", "VmSize", "ulimit -v"), ("RLIMIT_DATA", "VmData", "ulimit -d"))
# How libraries word it when the system gives them no more memory; some raise RuntimeError, and have no class for it.
_NO_MEMORY = re.compile(
    r"bad.alloc|bad allocation|(not enough|out of) memory|(can't|cannot|failed to|could not) allocate|"
    r"can't start new thread|failed to map segment",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class FreeMemory:
    """How many bytes more this process can have, and what sets that limit, in words."""

    bytes: int
    limit: str


def usable_cores() -> int:
    """Return how many cores this process has, which ``taskset`` or a container can restrict; at least 1.

    Of a quota's fractions nothing is taken: a thread more than the quota feeds makes all of them wait at the end of
    each of its periods.
    """
    return max(1, min([len(_allowed_cpus()), *map(int, _cpu_quotas())]))


def thread_limit() -> int | None:
    """Return how many threads a library may take; None where it may take as many as it would by itself.

    Libraries count the machine's cores; what is left of these to a container they see only in part.
    """
    allowed, cores = _allowed_cpus(), usable_cores()
    if cores == len(allowed) == os.cpu_count():
        return None
    return min(cores, len({_siblings(cpu) for cpu in allowed}))


def free_memory() -> FreeMemory | None:
    """Return how much memory this process can still have; None where the system does not tell."""
    found = [*_of_machine(), *_of_groups(), *_of_process_limits()]
    return min(found, key=lambda each: each.bytes, default=None)


@contextlib.contextmanager
def memory_for(work: str, needed_bytes: int, *, advice: str) -> Iterator[None]:
    """Do a piece of work that takes memory, or say why it cannot be done.

    Args:
        work: begins the message, such as "checking the file at 3840x2160".
        needed_bytes: what it takes beside what this process holds already.
        advice: what to do where there is less.

    Raises:
        MemoryShortageError: there is less, or memory ran out in the course of the work.
    """
    free = free_memory()
    if free is not None and needed_bytes > free.bytes:
        raise MemoryShortageError(
            f"{work} takes about {in_gb(needed_bytes)} of memory, and {in_gb(free.bytes)} are left of {free.limit}; "
            f"{advice}"
        )
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryShortageError(
            f"{work} ran out of memory (it takes about {in_gb(needed_bytes)}); {advice}"
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception, of whatever library, says that the system gave no more memory."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def in_gb(size_bytes: int) -> str:
    """Return a size in GB, for people."""
    return f"{size_bytes / 1e9:.1f} GB"


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _siblings(cpu: int) -> str:
    """Return what is the same for the hardware threads of one core."""
    return _read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu)


def _cpu_quotas() -> Iterator[float]:
    """Yield how many cores' time each control group has that this process is in."""
    for group in _groups("cpu"):
        for names in _QUOTA_FILES:
            words = " ".join(_read(group / name) for name in names).split()
            if len(words) == 2 and all(word.isdecimal() for word in words):  # else "max", or -1
                quota, period = map(int, words)
                yield quota / max(period, 1)


def _of_machine() -> Iterator[FreeMemory]:
    facts = _numbers(_PROC / "meminfo")
    if "MemAvailable" in facts:
        # With what can be moved to disk: only when that is full too are processes killed.
        yield FreeMemory((facts["MemAvailable"] + facts.get("SwapFree", 0)) * _KIB, "this machine's memory")
    elif (total := machine_memory_bytes()) is not None:
        yield FreeMemory(total, "this machine's memory")


def machine_memory_bytes() -> int | None:
    """Return the size of the machine's memory; None where the system does not tell."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf, other systems not these names
        return None


def _of_groups() -> Iterator[FreeMemory]:
    for group in _groups("memory"):
        for limit, use, reclaimable in _MEMORY_FILES:
            allowed, used = _read(group / limit), _read(group / use)
            if allowed.isdecimal() and used.isdecimal():
                free = int(allowed) - int(used) + _numbers(group / "memory.stat").get(reclaimable, 0)
                yield FreeMemory(max(0, free), f"the {in_gb(int(allowed))} of this container or control group")


def _groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in: its own, and those around it.

    Within a container the path is often that outside of it, of which nothing is mounted but the last folder: that is
    the mount itself, which comes last.
    """
    for line in _read(_PROC / "self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if names and controller not in names.split(","):
            continue
        parts = Path(path).parts[1:]
        for mount in (_GROUPS / controller,) if names else (_GROUPS, _GROUPS / "unified"):
            yield from (mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1))


def _of_process_limits() -> Iterator[FreeMemory]:
    try:
        import resource
    except ImportError:  # Windows
        return
    used = _numbers(_PROC / "self/status")
    for name, line, command in _PROCESS_LIMITS:
        limit, _ = resource.getrlimit(getattr(resource, name))
        if limit != resource.RLIM_INFINITY:
            yield FreeMemory(max(0, limit - used.get(line, 0) * _KIB), f"the {in_gb(limit)} that {command} allows")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""


def _numbers(path: Path) -> dict[str, int]:
    """Return the numbers of a file with a name and a number in each line, whatever follows."""
    words = (line.replace(":", " ").split() for line in _read(path).splitlines())
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdecimal()}
