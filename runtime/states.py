"""How far an engine has come on this machine: states that a report keeps apart, each with its reason."""

from __future__ import annotations

from typing import Any

STATES = ("parsed", "built", "loaded", "ran", "numerics checked")


class States:
    """Each state is reached, or not for a reason. At the beginning nothing is."""

    def __init__(self) -> None:
        self._states: dict[str, tuple[bool, str]] = dict.fromkeys(STATES, (False, "not attempted"))

    def reach(self, state: str, how: str = "") -> None:
        """It was done; `how` says on what."""
        self._set(state, True, how)

    def miss(self, state: str, reason: str) -> None:
        """It was not done, or did not succeed."""
        self._set(state, False, reason)

    def _set(self, state: str, done: bool, detail: str) -> None:
        if state not in self._states:
            raise KeyError(state)
        self._states[state] = done, detail

    def __getitem__(self, state: str) -> bool:
        return self._states[state][0]

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """`{"parsed": {"done": true, "detail": "..."}, ...}`, in the order in which they are reached."""
        return {state: {"done": done, "detail": detail} for state, (done, detail) in self._states.items()}
