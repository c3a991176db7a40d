"""A backend that breaks on purpose: what a run must survive, or end on in good order."""

from __future__ import annotations

from collections.abc import Mapping

from imgclf_sweep.backends.protocol import Backend, Exhausted, Wait
from imgclf_sweep.errors import SweepError
from imgclf_sweep.trial import Outcome, Suggestion


class FailingBackend:
    """Behaves as `inner` until the step named: `ask`, `report`, `tell` or `state` of trial `number` (state: the n-th call)."""

    def __init__(self, inner: Backend, step: str, number: int) -> None:
        self._inner = inner
        self._fails = (step, number)
        self._states = -1

    def _maybe(self, step: str, number: int) -> None:
        if self._fails == (step, number):
            raise SweepError(f"the search library failed in {step} of trial {number}")

    def ask(self, number: int) -> Suggestion | Wait | Exhausted:
        self._maybe("ask", number)
        return self._inner.ask(number)

    def report(self, number: int, epoch: int, value: float) -> bool:
        self._maybe("report", number)
        return self._inner.report(number, epoch, value)

    def tell(self, number: int, outcome: Outcome) -> None:
        self._maybe("tell", number)
        self._inner.tell(number, outcome)

    def needed(self) -> set[int]:
        return self._inner.needed()

    def state(self) -> Mapping[str, str]:
        self._states += 1
        self._maybe("state", self._states)
        return self._inner.state()

    def close(self) -> None:
        self._inner.close()
