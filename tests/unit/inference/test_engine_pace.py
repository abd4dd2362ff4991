"""Times of calls on a device that works through a queue. The device is played."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from terroir.inference.engine.pace import Pace


class PlayedDevice:
    """Works through its queue one call after the other, while the host's clock goes on by itself."""

    def __init__(self) -> None:
        self.host, self.free_at, self.ahead = 0.0, 0.0, 0.0

    def launch(self, seconds: float) -> None:
        """Takes the host no time, and the device so many seconds from when it is free."""
        self.free_at = max(self.free_at, self.host) + seconds
        self.ahead = max(self.ahead, self.free_at - self.host)

    def mark(self) -> PlayedMark:
        return PlayedMark(self, max(self.free_at, self.host))


class PlayedMark:
    def __init__(self, device: PlayedDevice, at: float) -> None:
        self._device, self.at = device, at

    def synchronize(self) -> None:
        self._device.host = max(self._device.host, self.at)

    def elapsed_time(self, end: Any, /) -> float:
        assert end.at <= self._device.host, "CUDA refuses the time of an event that was not reached"
        return float(end.at - self.at) * 1000


def test_without_a_queue_a_call_takes_what_the_clock_says() -> None:
    device = PlayedDevice()
    pace = Pace(lambda: device.host, None)
    pace.begin()
    device.host += 3
    assert pace.end("any") == 3


@given(kinds=st.lists(st.sampled_from([1.0, 4.0, 30.0]), min_size=1, max_size=40))
def test_every_call_is_timed_as_long_as_its_kind_takes_whatever_came_before(kinds: list[float]) -> None:
    device = PlayedDevice()
    pace = Pace(lambda: device.host, device.mark)
    for seconds in kinds:
        pace.begin()
        device.launch(seconds)
        assert abs(pace.end(seconds) - seconds) < 1e-9


def test_the_device_never_idles_and_the_host_is_never_more_than_two_calls_ahead() -> None:
    device = PlayedDevice()
    pace = Pace(lambda: device.host, device.mark)
    for number in range(20):
        pace.begin()
        device.launch(1.0)
        pace.end("same")
        assert number == 0 or device.free_at - device.host >= 1.0, "the next call is there before this one is over"
    assert device.ahead <= 2.0


def test_a_kind_that_became_slower_is_noticed_one_call_later() -> None:
    device, seen = PlayedDevice(), list[float]()
    pace = Pace(lambda: device.host, device.mark)
    for seconds in (1.0, 1.0, 5.0, 5.0):
        pace.begin()
        device.launch(seconds)
        seen.append(pace.end("same"))
    assert seen == [1.0, 1.0, 1.0, 5.0]
