"""Converts durations, given as steps, epochs, examples or percent, to steps."""

import dataclasses

from ml_collections import ConfigDict

from trainers.configuration.checks import check_at_least_zero
from trainers.utils.errors import ConfigurationError

NAMES = ("total", "warmup", "log", "eval", "checkpoint")
UNITS = ("steps", "epochs", "examples", "percent")
#: The optimizer counts its steps in int32 on JAX.
MAX_STEPS = 2**31 - 1


def duration_steps(
    config: ConfigDict,
    name: str,
    *,
    num_examples: int,
    total_steps: int | None = None,
    default: int | None = None,
) -> int:
    """Returns a duration of the configuration in whole steps, at least 1 unless it is 0.

    `num_examples` counts one epoch; percentages refer to `total_steps`. A ConfigurationError says
    that a duration is missing without a default, given twice, negative, or in percent of itself.
    """
    keys = {unit: f"{name}_{unit}" for unit in UNITS}
    given = {unit: config[key] for unit, key in keys.items() if config[key] is not None}
    if len(given) > 1:
        raise ConfigurationError(
            f"Expected one unit for the duration {name!r}. Received "
            + ", ".join(f"{keys[unit]}={value:g}" for unit, value in given.items())
            + "."
        )
    if not given:
        if default is None:
            raise ConfigurationError(
                f"Expected a duration: one of {', '.join(keys.values())}. Received none."
            )
        return default
    ((unit, value),) = given.items()
    check_at_least_zero(keys[unit], value)
    if unit == "percent" and total_steps is None:
        raise ConfigurationError(
            f"{keys[unit]}={value:g} is a share of the whole training and has no meaning for "
            f"{name!r} itself. Use {keys['steps']}, {keys['epochs']} or "
            f"{keys['examples']}."
        )
    steps = {
        "steps": value,
        "epochs": value * num_examples / config.batch_size,
        "examples": value / config.batch_size,
        "percent": value / 100 * (total_steps or 0),
    }[unit]
    if steps > MAX_STEPS:
        raise ConfigurationError(
            f"{keys[unit]} must be at most {MAX_STEPS:,} steps. Received: {value:g}."
        )
    return max(1, round(steps)) if value > 0 else 0


@dataclasses.dataclass(frozen=True)
class TrainingSchedule:
    """Lengths of training and warm-up, and intervals, in steps; 0: only at the last step."""

    total: int
    warmup: int
    log: int
    evaluate: int
    checkpoint: int

    def steps_to_event(self, step: int, limit: int) -> int:
        """Returns the steps from `step` to the next event, at most `limit`."""
        intervals = (self.log, self.evaluate, self.checkpoint)
        gaps = [interval - step % interval for interval in intervals if interval]
        return max(1, min(limit, self.total - step, *gaps))

    def due(self, step: int, interval: int) -> bool:
        """Returns whether an interval ends at this step; every interval ends at the last step."""
        return step == self.total or (interval > 0 and step % interval == 0)


#: For a model that is not trained. Durations affect only the learning rate: in a compiled step
#: they are mere numbers.
NO_TRAINING = TrainingSchedule(total=1, warmup=0, log=1, evaluate=0, checkpoint=0)


def make_training_schedule(config: ConfigDict, num_examples: int) -> TrainingSchedule:
    """Returns the durations of a configuration in steps; see `duration_steps`."""
    total = duration_steps(config, "total", num_examples=num_examples)
    if total < 1:
        raise ConfigurationError(
            "total_steps, total_epochs or total_examples: the training must last at least one "
            "step. Received: 0."
        )
    defaults = {"warmup": 0, "log": max(1, total // 100), "eval": 0, "checkpoint": 0}
    steps = {
        name: duration_steps(
            config, name, num_examples=num_examples, total_steps=total, default=default
        )
        for name, default in defaults.items()
    }
    return TrainingSchedule(
        total, steps["warmup"], max(1, steps["log"]), steps["eval"], steps["checkpoint"]
    )
