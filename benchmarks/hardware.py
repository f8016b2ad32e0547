"""Tables of the pages on Jetsons and cards, from ``runtime/tensorrt/facts.json``: nothing in them was measured here.

What rests on a third party is marked [u], what nobody looked up [m]; the table of sources says where the rest is from.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sfpp.runtime.tensorrt.facts import Known, Source, boards, facts, gpus, jetpacks, sources

_MARKS = {"user report": "u", "memory": "m"}


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("|" + "|".join(f" {cell} " if cell != "---" else cell for cell in line) + "|" for line in lines)


def jetpack_table() -> str:
    """Return what each JetPack brings."""
    header = ("JetPack", "Jetson Linux", "Ubuntu, Python", "CUDA", "TensorRT", "boards", "sfpp")
    rows = []
    for each in jetpacks():
        linux = each.linux.replace(" ", ", ") or "see `/etc/nv_tegra_release`"
        system = _with_mark(each, "ubuntu python", f"{each.ubuntu}, {each.python}")
        support = "no: [see below](#jetpack-5)" if each.support == "no" else each.support
        cells = [_with_mark(each, "linux", linux), system, *(_marked(each, n) for n in ("cuda", "tensorrt", "boards"))]
        rows.append([each.name, *cells, support])
    return table(header, rows)


def cuda_python_table() -> str:
    """Return which cuda-python fits to which JetPack."""
    names: dict[str, list[str]] = {}
    for each in jetpacks():
        if each.cuda_python:
            names.setdefault(each.cuda_python, []).append(each.name)
    return table(("JetPack", "`cuda-python`"), [(", ".join(found), f"`=={key}.*`") for key, found in names.items()])


def power_table() -> str:
    """Return the power modes of each board."""
    header = ("board", "numbers and names", "comes with", "notes")
    rows = [
        (
            each.name,
            _with_mark(each, "modes", ", ".join(f"{key} = {name}" for key, name in each.modes.items())),
            _with_mark(each, "default", each.default) if each.default else "",
            _with_mark(each, "note", each.note) if each.note else "",
        )
        for each in boards()
        if each.modes
    ]
    return table(header, rows)


def checked_table() -> str:
    """Return the versions that ``--check`` has a verdict for."""
    header = ("version", "comes with", "opset up to", "operators that it brought")
    rows = []
    for each in facts()["tensorrt"].values():
        names = each["new_operators"].split()
        brought = ", ".join(f"`{name}`" for name in names) if len(names) < 10 else f"{len(names)} to begin with"
        rows.append((each["title"], each["home"], str(each["highest_opset"] or "any that there is"), brought))
    return table(header, rows)


def peaks_table() -> str:
    """Return the published peaks that bounds are made of."""
    header = ("GPU", "FP16, TFLOPS", "INT8, TOPS", "memory, GB/s")
    fields = ("fp16_tflops", "int8_tops", "bandwidth_gb_s")
    return table(header, [(each.name, *(_marked(each, name) for name in fields)) for each in gpus()])


def sources_table() -> str:
    """Return where the facts are from."""
    rows = [(each.mark, _linked(each)) for each in sorted(sources().values(), key=lambda each: each.mark)]
    return table(("mark", "source"), rows)


def _linked(source: Source) -> str:
    text = f"[{source.what}]({source.link})" if source.link else source.what
    return f"{text}, at `{source.commit}`" if source.commit else text


def _marked(row: Known, name: str) -> str:
    return _with_mark(row, name, str(getattr(row, name)))


def _with_mark(row: Known, names: str, text: str) -> str:
    marks = {_MARKS.get(sources()[key].mark, "") for name in names.split() for key in row.sources_of(name)} - {""}
    return f"{text} [{', '.join(sorted(marks))}]" if marks else text
