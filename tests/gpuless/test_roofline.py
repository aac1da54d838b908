"""Predictions follow the slowest limit."""

import pytest
from fastsnn._bench import roofline

DEVICE = roofline.Device("a device", 90, 1e12, 1e13)


@pytest.mark.parametrize(
    ("neurons", "moved", "instructions", "limit", "share"),
    [(10**8, 20, 100, "memory", 1.0), (10**8, 20, 400, "issue", 0.5), (10**4, 20, 100, "launch", 0.1)],
)
def test_the_slowest_limit_holds(neurons, moved, instructions, limit, share):
    guess = roofline.predict(DEVICE, neurons, moved, instructions)
    assert guess.limit == limit
    assert guess.share == pytest.approx(share)
