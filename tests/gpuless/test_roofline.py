"""Predictions follow the slowest limit."""

import pytest
from fastsnn._bench import roofline

DEVICE = roofline.Device("a device", "a model", 90, 1e12, 1e13)


@pytest.mark.parametrize(
    ("neurons", "moved", "instructions", "limit", "share"),
    [(10**8, 20, 100, "memory", 1.0), (10**8, 20, 400, "issue", 0.5), (10**4, 20, 100, "launch", 0.1)],
)
def test_the_slowest_limit_holds(neurons, moved, instructions, limit, share):
    guess = roofline.predict(DEVICE, neurons, moved, instructions)
    assert guess.limit == limit
    assert guess.share == pytest.approx(share)


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA B200", "B200"),
    ],
)
def test_a_device_is_known_by_its_model(driver, name):
    assert roofline.device_named(driver).name == name


@pytest.mark.parametrize("driver", ["NVIDIA H100 PCIe", "NVIDIA A100-PCIE-40GB", "NVIDIA H200 NVL", "NVIDIA L4"])
def test_other_models_have_no_limits_here(driver):
    assert roofline.device_named(driver) is None
