"""The store's time: what of the device's clock it believes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_reranker.store.clock import Noted, advance, after, dated

DAY = 86_400.0
YEAR = 365 * DAY
NOW = 1_800_000_000.0


class Device:
    """A device whose true time goes on, and whose clock may say something else."""

    def __init__(self) -> None:
        self.true_s = NOW
        self.wrong_s = 0.0
        self.noted = Noted(NOW, NOW)

    @property
    def clock_s(self) -> float:
        return self.true_s + self.wrong_s

    def runs(self, for_s: float, looks: int = 1) -> float:
        """How far the store's time is off after so long."""
        for _ in range(looks):
            self.true_s += for_s / looks
            self.noted = advance(self.noted, self.clock_s, for_s / looks)
        return self.noted.store_s - self.true_s

    def is_off(self, for_s: float) -> float:
        self.true_s += for_s
        self.noted = advance(self.noted, self.clock_s, None)
        return self.noted.store_s - self.true_s


@pytest.mark.parametrize("wrong_s", [10 * YEAR, -10 * YEAR])
@pytest.mark.parametrize("stopped", [False, True])
def test_a_clock_that_jumps_ten_years_and_comes_back_within_a_week_changes_nothing(
    wrong_s: float, stopped: bool
) -> None:
    device = Device()
    device.wrong_s = wrong_s
    if stopped:
        device.is_off(0.0)
    # A stop of six hours, by a clock that is wrong as before, is six hours.
    off_s = [device.runs(2 * DAY, 5), device.is_off(DAY / 4), device.runs(4 * DAY, 5)]
    device.wrong_s = 0.0
    off_s += [device.runs(DAY), device.runs(100 * DAY, 10)]
    # A jump ahead over a stop is believed for a day, because the device may have been off.
    most = DAY if stopped and wrong_s > 0 else 0.0
    assert all(-1 <= off <= most + 1 for off in off_s)


def test_a_clock_that_is_behind_for_ever_turns_no_time_back() -> None:
    device = Device()
    device.wrong_s = -10 * YEAR
    assert abs(device.runs(400 * DAY, 400)) < 1


def test_after_two_years_off_the_time_is_right_again_within_a_week_of_running() -> None:
    device = Device()
    assert device.is_off(2 * YEAR) == pytest.approx(DAY - 2 * YEAR)
    assert device.runs(6.9 * DAY, 10) == pytest.approx(DAY - 2 * YEAR)
    assert abs(device.runs(0.2 * DAY)) < 1
    assert device.noted.steps == ()


def test_a_device_that_is_used_on_weekends_only_lags_by_some_weeks_and_no_more() -> None:
    device = Device()
    for _ in range(60):
        device.is_off(5 * DAY)
        lag_s = -device.runs(2 * DAY, 2)
    # A day of each gap is believed at once, four after a week of the store's time, which is some weekends.
    assert 0 <= lag_s <= 3 * 7 * DAY


def test_a_step_that_is_believed_hurries_no_later_one() -> None:
    device = Device()
    device.is_off(2 * YEAR)
    device.runs(6 * DAY)
    device.wrong_s = 10 * YEAR
    device.runs(0.5 * DAY)
    assert device.noted.steps[1][1] == pytest.approx(10 * YEAR)
    assert abs(device.runs(DAY)) < 2  # the two years, and not the ten
    device.wrong_s = 0.0
    assert abs(device.runs(30 * DAY, 5)) < 2


jumps = st.lists(
    st.tuples(
        st.floats(-20 * YEAR, 20 * YEAR),  # how wrong the clock is from now on
        st.floats(0, 6.5 * DAY),  # for how long, until it is right again
        st.floats(0, 3 * DAY),  # and how long that lasts
        st.booleans(),  # whether the service is started anew
    ),
    max_size=8,
)


@settings(max_examples=60, deadline=None)
@given(jumps=jumps)
def test_no_jumps_that_end_within_a_week_make_anything_older_than_the_days_of_its_starts(
    jumps: list[tuple[float, float, float, bool]],
) -> None:
    device = Device()
    n_starts = 0
    for wrong_s, for_s, between_s, stops in jumps:
        device.wrong_s = wrong_s
        if stops:
            n_starts += 1
            device.is_off(0.0)
        device.runs(for_s, 2)
        device.wrong_s = 0.0
        assert device.runs(between_s) <= n_starts * DAY + 60 * (len(jumps) + 1)


@settings(max_examples=60, deadline=None)
@given(jumps=jumps)
def test_the_stores_time_never_goes_back(jumps: list[tuple[float, float, float, bool]]) -> None:
    device = Device()
    for wrong_s, for_s, _, stops in jumps:
        before_s = device.noted.store_s
        device.wrong_s = wrong_s
        device.is_off(for_s) if stops else device.runs(for_s)
        assert device.noted.store_s >= before_s
        assert len(device.noted.steps) <= 32


def test_what_is_recorded_under_a_clock_that_is_behind_happened_now() -> None:
    behind = Noted(NOW, NOW - 10 * YEAR)
    assert dated(NOW - 10 * YEAR - 60, behind) == NOW - 60
    # Who has another clock, such as a server's, knows better.
    assert dated(NOW - 60, behind) == NOW - 60


def test_what_is_recorded_under_a_clock_that_is_right_or_ahead_stays_as_it_is() -> None:
    assert dated(NOW - YEAR, Noted(NOW, NOW)) == NOW - YEAR
    ahead = advance(Noted(NOW, NOW), NOW + 10 * YEAR, 1.0)
    assert dated(NOW + 10 * YEAR, ahead) == NOW + 10 * YEAR
    assert after(ahead) is None
    assert after(Noted(NOW, NOW)) == NOW + DAY
