"""Where a request's time goes, for its last event and for the cost model."""

from __future__ import annotations

from terroir.inference.admission.admission import Place
from terroir.inference.engine.messages import Stepped


class Waits:
    """Readings of one clock, in seconds, taken as things happen."""

    def __init__(self, arrived: float, loaded: float, place: Place | None = None) -> None:
        """`loaded` is when the adapters were held in host memory; whoever takes only spare rows has no place."""
        self.place = place
        self._arrived = arrived
        self.turn = loaded
        """When the request was given to the engine."""
        self._loaded = loaded
        self._first_tick: float | None = None
        self._last_tick = loaded
        self._last_picture = loaded

    def stepped(self, event: Stepped, now: float) -> None:
        """A step was reported."""
        if self._first_tick is None:
            self._first_tick = now - event.tick.seconds
        self._last_tick = self._last_picture = now
        if self.place is not None:
            self.place.stepped(event.step, event.total)

    def drawn(self, now: float) -> None:
        """A picture came."""
        self._last_picture = now

    @property
    def queue_seconds(self) -> float:
        """From arrival to the turn."""
        return self.turn - self._arrived

    @property
    def load_seconds(self) -> float:
        """From arrival until the adapters were in host memory."""
        return self._loaded - self._arrived

    @property
    def hidden_load_seconds(self) -> float:
        """What of the load passed before its turn would have come, had nothing been to load."""
        if self.place is None:
            return self.load_seconds  # nobody waits for it
        due = self._loaded if self.place.due is None else min(self.place.due, self._loaded)
        return due - self._arrived

    @property
    def before_ticks(self) -> float:
        """From the turn to the begin of the first tick: texts, and ticks that had begun."""
        return 0.0 if self._first_tick is None else max(0.0, self._first_tick - self.turn)

    @property
    def after_ticks(self) -> float:
        """From the last step to the last picture: decoding."""
        return self._last_picture - self._last_tick
