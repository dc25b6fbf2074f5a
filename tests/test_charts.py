"""Line charts: what an axis is labelled with."""

import math

from sdcore.charts import Line, chart, ticks


def test_whole_numbers_are_labelled_by_whole_numbers() -> None:
    assert ticks(0.88, 4.12, False, [1, 2, 3, 4]) == [1, 2, 3, 4]
    assert ticks(0.0, 1.0, False, [0.5, 1]) == [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]
    assert len(ticks(1, 50, False, range(1, 51))) <= 9


def test_a_logarithmic_axis_of_any_range_is_labelled() -> None:
    """Also within less than a factor of two, where no power of ten and no half of one falls."""
    found = ticks(math.log10(0.1122), math.log10(0.1229), True)
    assert [f"{tick:.5g}" for tick in found] == ["0.114", "0.116", "0.118", "0.12", "0.122"]
    assert len(ticks(math.log10(0.15), math.log10(0.9), True)) > 2
    assert ticks(-1, 1, True) == [0.1, 0.2, 0.5, 1, 2, 5, 10]
    assert ticks(-4, 0, True) == [1e-4, 1e-3, 1e-2, 0.1, 1]
    for exponent in range(-12, 12):
        for width in (1e-3, 0.05, 0.3, 1, 7):
            assert len(ticks(exponent + 0.6, exponent + 0.6 + width, True)) >= 2


def test_a_chart_of_next_to_nothing() -> None:
    """One point, the same values, and none that can be drawn."""
    for points in ([(1, 1)], [(1, 0.1), (2, 0.1)], [(1, math.nan)], [(1, -1.0)]):
        for log in (False, True):
            assert chart([Line("a", points)], "title", "x", "y", log, log).size == (900, 560)
