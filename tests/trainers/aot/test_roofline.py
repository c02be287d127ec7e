"""The bound of a step, and the peak rates that it comes from."""

import pytest

from trainers.aot.cost import Cost
from trainers.aot.roofline import Roofline
from trainers.aot.topology import GENERATIONS
from trainers.aot.topology import generation_of

V5E = GENERATIONS["v5e"]  # 197 TFLOP/s, 819 GB/s


@pytest.mark.parametrize(
    ("cost", "bound_by", "seconds", "utilization"),
    [
        (Cost(int(394e12), int(819e9)), "compute", 2.0, 1.0),
        (Cost(int(197e12), int(4 * 819e9)), "memory", 4.0, 0.25),
    ],
)
def test_the_slower_of_the_two_binds(
    cost: Cost, bound_by: str, seconds: float, utilization: float
) -> None:
    roofline = Roofline(cost, V5E, examples=8)
    assert roofline.bound_by == bound_by
    assert roofline.bound_seconds == pytest.approx(seconds)
    assert roofline.bound_examples_per_second == pytest.approx(8 / seconds)
    assert roofline.bound_utilization == pytest.approx(utilization)


def test_a_roofline_says_that_it_is_a_bound() -> None:
    assert str(Roofline(Cost(int(197e12), int(4 * 819e9)), V5E, examples=8)) == (
        "1 s by compute, 4 s by memory (3276.00 GB through HBM); memory binds: at most "
        "2.00 examples/s a chip, utilisation at most 25.0%"
    )


def test_generations_by_the_name_of_a_device() -> None:
    assert generation_of("TPU v5 lite") is GENERATIONS["v5e"]
    assert generation_of("TPU v5") is generation_of("TPU v5p") is GENERATIONS["v5p"]
    assert generation_of("cpu") is None
