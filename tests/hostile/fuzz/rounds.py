"""Rounds of mutations, each with a seed that repeats it."""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import hypothesis
import pytest
from hypothesis.strategies import SearchStrategy

MUTATIONS = 25


@dataclass(frozen=True)
class Rounds:
    """
    Draws mutations and tries them.

    Attributes:
        seconds: Duration of this test's rounds.
        seeds: The seeds of the rounds.
        repeated: The seed of the only round to run, or None.
        test: Part of the test's name, for the command that repeats a round.
    """

    seconds: float
    seeds: Iterator[int]
    repeated: int | None
    test: str

    def run(self, attempt: Callable[[Any], None], mutations: SearchStrategy[Any], *, share: float) -> None:
        """
        Try *mutations* for a *share* of the seconds, at least one round.

        A mutation that fails is made as small as possible, and the failure names the seed of its round.
        """
        if self.repeated is not None:
            self._run_one(attempt, mutations, self.repeated)
            return
        end = time.monotonic() + self.seconds * share
        for seed in self.seeds:
            self._run_one(attempt, mutations, seed)
            if time.monotonic() >= end:
                print(f"{self.test}: the last seed was {seed}")
                return

    def _run_one(self, attempt: Callable[[Any], None], mutations: SearchStrategy[Any], seed: int) -> None:
        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=MUTATIONS,
            deadline=None,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate, hypothesis.Phase.shrink],
        )
        @hypothesis.given(mutations)
        def try_mutation(mutation: Any) -> None:
            attempt(mutation)

        try:
            try_mutation()
        except BaseException as error:
            error.add_note(f"to repeat: ./run.sh test tests/hostile/fuzz -k '{self.test}' --fuzz-seed {seed}")
            raise


def make_rounds(request: pytest.FixtureRequest, test: str, *, tests: int) -> Rounds:
    """Return the rounds of *test*; *tests* of them divide `--fuzz-seconds` evenly."""
    seconds: float = request.config.getoption("--fuzz-seconds")
    first = time.time_ns() // 1_000_000 if request.config.getoption("--explore") else 0
    return Rounds(seconds / tests, itertools.count(first), request.config.getoption("--fuzz-seed"), test)
