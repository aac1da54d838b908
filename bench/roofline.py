"""What published limits of real devices allow a kernel at best: predictions, never measurements."""

from __future__ import annotations

from dataclasses import dataclass

LAUNCH = 2e-6  # seconds from one kernel's end to the next one's start on a busy stream; assumed for every device


@dataclass(frozen=True)
class Device:
    """`driver`: the model that the limits are of, as a driver names it. `bandwidth`: B/s. `issue`: instructions of
    threads a second, half of the published float32 FLOP/s."""

    name: str
    driver: str
    arch: int
    bandwidth: float
    issue: float


# NVIDIA's data sheets: A100 80GB SXM 2,039 GB/s and 19.5 TFLOP/s; H100 SXM 3.35 TB/s and 67; H200 SXM 4.8 TB/s and 67;
# B200 8 TB/s and 75
DEVICES = (
    Device("A100", "A100-SXM4-80GB", 80, 2.039e12, 19.5e12 / 2),
    Device("H100", "H100 80GB HBM3", 90, 3.35e12, 67e12 / 2),
    Device("H200", "NVIDIA H200", 90, 4.8e12, 67e12 / 2),
    Device("B200", "NVIDIA B200", 100, 8.0e12, 75e12 / 2),
)


@dataclass(frozen=True)
class Prediction:
    """Seconds that each limit costs; the slowest one holds."""

    memory: float
    issue: float
    launch: float = LAUNCH

    @property
    def seconds(self) -> float:
        return max(self.memory, self.issue, self.launch)

    @property
    def limit(self) -> str:
        return max(("memory", "issue", "launch"), key=lambda name: getattr(self, name))

    @property
    def share(self) -> float:
        """Of the device's memory bandwidth."""
        return self.memory / self.seconds


def device_named(name: str) -> Device | None:
    """The device of that model: others of its family, as PCIe cards, have other limits. None where it is not known."""
    return next((device for device in DEVICES if name.endswith(device.driver)), None)


def predict(device: Device, neurons: int, bytes_per_neuron: float, instructions_per_neuron: float) -> Prediction:
    """The roofline of one launch over `neurons`, every byte of which comes from memory."""
    memory = neurons * bytes_per_neuron / device.bandwidth
    return Prediction(memory, neurons * instructions_per_neuron / device.issue)
