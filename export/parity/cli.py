"""The command ``sfpp-parity``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence

from sfpp.export.parity.options import COMMAND, parity_parser
from sfpp.runtime.cli.console import exit_code_of
from sfpp.runtime.cli.supervised import supervised
from sfpp.runtime.files import check_destinations

_DISAGREES = 1
# What is over sooner needs no bar.
_PATIENCE_S = 2.0


def command() -> int:
    """Run the command as a program of its own, supervised, and return its exit code."""
    return supervised(COMMAND, main)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command here and return its exit code."""
    arguments = parity_parser().parse_args(argv)
    return exit_code_of(COMMAND, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    read = (arguments.model, arguments.weights, arguments.images, arguments.contract)
    check_destinations(arguments.json, arguments.html, also_read=read)
    # Not at the top: --help must not wait for torch.
    from sfpp.export.parity import parity
    from sfpp.export.parity.words import next_command, report_text
    from sfpp.runtime.model_file import read_contract_file

    options = vars(arguments)
    json_path, html_path, contract = options.pop("json"), options.pop("html"), options.pop("contract")
    with _progress() as progress:
        report = parity(
            **options,
            contract=None if contract is None else read_contract_file(contract),
            notify=_note,
            progress=progress,
        )
    print(report_text(report))
    for path, write in ((json_path, report.write_json), (html_path, report.write_html)):
        if path is not None:
            write(path)
            print(f"wrote {path}")
    print(f"next: {next_command(report)}")
    return 0 if report.agrees else _DISAGREES


def _note(line: str) -> None:
    print(f"{COMMAND}: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, if a person looks at it and it takes a while."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda done, total: None
        return
    hidden = not sys.stderr.isatty()
    with tqdm(unit="frame", delay=_PATIENCE_S, disable=hidden, leave=False, file=sys.stderr) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


if __name__ == "__main__":
    sys.exit(command())
