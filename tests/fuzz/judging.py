"""What a reader of foreign data owes whatever it is given: a result, or an error of our own tree."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

from hypothesis import given, settings

from sfpp.runtime.errors import SfppError

# A message may show the input, but not fill somebody's log with it.
_LONGEST_MESSAGE = 100_000


@dataclass
class Tally:
    """Inputs that one test was given so far, and the time that its reader took for them."""

    inputs: int = 0
    seconds: float = 0.0


tally = Tally()


def on_input():
    """Called before each input."""


def fuzzed(share=1.0, **inputs):
    """Make a property of a function that reads: for all inputs it returns, or raises an error of ours.

    Args:
        share: of the profile's number of inputs; the faster the reader, the more.
        inputs: hypothesis's strategies for the function's arguments; others are fixtures.
    """

    def decorate(read):
        @settings(max_examples=max(1, round(share * settings().max_examples)))
        @given(**inputs)
        @functools.wraps(read)
        def judged(**values):
            on_input()
            start = time.perf_counter()
            try:
                read(**values)
            except SfppError as error:
                text = str(error)
                assert 0 < len(text) < _LONGEST_MESSAGE, f"a message of {len(text)} characters"
            finally:
                tally.inputs += 1
                tally.seconds += time.perf_counter() - start

        return judged

    return decorate
