"""An oracle's state in parts, so that a change of one trial rewrites what belongs to that trial and not to all of them.

    oracle         what `Oracle.get_state` gives, without what grows with the trials
    trial/<id>     {"number": ours, "trial": what `Trial.get_state` gives, "hash": of its values, "runs": how often it was run,
                   "ended": its place among the trials that ended, or null}

`whole` puts together what the library itself writes, 100 kB at 1,000 trials. Without importing it. Keras Tuner 1.4.8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

GROWING = ("start_order", "end_order", "run_times", "tried_so_far", "id_to_hash")
TRIAL = "trial/"


def parts(oracle: Mapping[str, Any], trials: Mapping[str, tuple[int, Mapping[str, Any]]]) -> dict[str, str]:
    """The entries to keep after these trials have changed.

    oracle: its `get_state`.   trials: from each changed trial's id to our number and its `get_state`.
    """
    ended = {trial_id: place for place, trial_id in enumerate(oracle["end_order"]) if trial_id in trials}
    out = {
        f"{TRIAL}{trial_id}": json.dumps(
            {
                "number": number,
                "trial": state,
                "hash": oracle["id_to_hash"].get(trial_id),
                "runs": oracle["run_times"].get(trial_id),
                "ended": ended.get(trial_id),
            }
        )
        for trial_id, (number, state) in sorted(trials.items())
    }
    out["oracle"] = json.dumps({name: value for name, value in oracle.items() if name not in GROWING})
    return out


def entries(state: Mapping[str, str]) -> list[dict[str, Any]]:
    """The kept entries of trials, in the order in which the trials were asked.  Raises: ValueError, LookupError, TypeError."""
    found = [json.loads(text) for key, text in state.items() if key.startswith(TRIAL)]
    return sorted(found, key=lambda entry: int(entry["trial"]["trial_id"]))


def is_whole(oracle: Mapping[str, Any]) -> bool:
    """Whether it was kept whole, as records had it before it came in parts."""
    return all(name in oracle for name in GROWING)


def whole(state: Mapping[str, str]) -> dict[str, Any]:
    """The oracle's state as `Oracle.set_state` and a Tuner's `oracle.json` have it.

    Every trial is started once, so the order of the starts is that of the ids, and what was tried are the trials' hashes.
    Raises: ValueError, LookupError, TypeError for what is none.
    """
    oracle: dict[str, Any] = dict(json.loads(state["oracle"]))
    if is_whole(oracle):
        return oracle
    kept = entries(state)
    ended = sorted((entry for entry in kept if entry["ended"] is not None), key=lambda entry: entry["ended"])
    oracle["start_order"] = _ids(kept)
    oracle["end_order"] = _ids(ended)
    oracle["run_times"] = {_id(entry): entry["runs"] for entry in kept if entry["runs"] is not None}
    oracle["id_to_hash"] = {_id(entry): entry["hash"] for entry in kept}
    oracle["tried_so_far"] = sorted({entry["hash"] for entry in kept})
    return oracle


def _id(entry: Mapping[str, Any]) -> str:
    return str(entry["trial"]["trial_id"])


def _ids(found: Iterable[Mapping[str, Any]]) -> list[str]:
    return [_id(entry) for entry in found]
