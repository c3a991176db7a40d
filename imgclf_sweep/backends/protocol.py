"""The rules every search backend keeps, whatever library is behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..trial import Outcome, Suggestion


class Wait:
    """Nothing to try just now: ask again after the next `tell` (Hyperband between rungs, several workers)."""


class Exhausted:
    """Nothing will ever be left to try: the search has ended by itself."""


class Backend(Protocol):
    """Asks and answers of one search. Called from one thread. It never touches the record, a model or data.

    Numbers. The caller numbers trials from 0 without gaps and passes the next number to `ask`. Everything about a trial is
    said by its number.

    Opening. A backend is made with the sweep, the recorded trials of this space in order of number, and the state it asked to
    be kept (`open_backend`). Finished trials are as good as told; trials that are RUNNING or QUEUED were asked and are still
    open: they may be reported and told without a new `ask`.

    Seeds. The proposal for number n depends only on the sweep's seed, n and what was told before: `SeedSequence([seed, n])`.
    """

    def ask(self, number: int) -> Suggestion | Wait | Exhausted:
        """The configuration for trial `number`. After Wait or Exhausted the number is still free."""
        ...

    def adopt(self, suggestion: Suggestion) -> None:
        """A configuration of the user's, of this space, becomes an asked trial: reported and told like any other. The first
        `len(sweep.known)` numbers are such trials or lie outside the space; those outside are never mentioned here."""
        ...

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Tell the objective after `epoch` (from 1, rising, finite) of an open trial; True = stop it now. When a restarted
        trial reports an epoch again, the later report is ignored and the answer may be False."""
        ...

    def tell(self, number: int, outcome: Outcome) -> None:
        """Tell how an asked trial ended: exactly once for each. Deterministic failures steer the sampler away where the
        library can say so. No `report` may follow."""
        ...

    def needed(self) -> set[int]:
        """The finished trials whose best weights a later proposal may start from (its `parent`): those an open bracket of
        Hyperband may still promote. Of proposals already made the caller knows by itself. Empty where trials start anew."""
        ...

    def state(self) -> Mapping[str, str]:
        """What must be kept in the record to reopen: key -> JSON text, only the entries that changed since the last call.
        The caller commits them in the transaction of the ask or tell that changed them. Empty for a backend that is rebuilt
        from the trials alone."""
        ...

    def close(self) -> None:
        """Release everything. Calling it twice is allowed; anything else after it is an error."""
        ...


class Unlearned:
    """The part of a `Backend` that learns nothing from how trials go, prunes none and is rebuilt from the trials alone."""

    def report(self, number: int, epoch: int, value: float) -> bool:
        return False

    def tell(self, number: int, outcome: Outcome) -> None:
        pass

    def needed(self) -> set[int]:
        return set()

    def state(self) -> Mapping[str, str]:
        return {}

    def close(self) -> None:
        pass
