import pytest
from ml_collections import ConfigDict

from trainers.configuration.configuration import base_config
from trainers.configuration.schedule import TrainingSchedule
from trainers.configuration.schedule import duration_steps
from trainers.configuration.schedule import make_training_schedule
from trainers.configuration.training_options import check_training
from trainers.utils.errors import ConfigurationError


def _config(**values: float) -> ConfigDict:
    config = base_config()
    config.batch_size = 32
    config.update(values)
    return config


@pytest.mark.parametrize(
    ("unit", "value", "steps"),
    [
        ("steps", 7, 7),
        ("steps", 0, 0),
        ("epochs", 2, 6),
        ("epochs", 0.5, 2),
        ("epochs", 0.001, 1),
        ("examples", 320, 10),
        ("examples", 1, 1),
        ("percent", 10, 20),
        ("percent", 0.1, 1),
        ("percent", 0, 0),
    ],
)
def test_every_unit(unit: str, value: float, steps: int) -> None:
    config = _config(**{f"eval_{unit}": value})
    assert duration_steps(config, "eval", num_examples=100, total_steps=200) == steps


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "one of total_steps, total_epochs, total_examples, total_percent"),
        ({"total_steps": -1}, "total_steps must be a number of at least 0"),
        ({"total_epochs": float("nan")}, "total_epochs must be a number"),
        ({"total_examples": float("inf")}, "total_examples must be a number"),
        ({"total_percent": 50}, "total_percent=50 is a share of the whole training"),
        ({"total_steps": 0}, "at least one step"),
        ({"total_steps": 9, "log_epochs": -1}, "log_epochs must be"),
        ({"total_steps": 9, "eval_steps": 1, "eval_percent": 1}, "one unit"),
    ],
)
def test_wrong_durations(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make_training_schedule(_config(**values), num_examples=100)


def test_too_long_is_refused_and_long_is_not() -> None:
    for unit in ("steps", "epochs", "examples"):
        with pytest.raises(ConfigurationError, match=f"log_{unit} must be at most"):
            make_training_schedule(
                _config(total_steps=2, **{f"log_{unit}": 1e308}), num_examples=100
            )
    # Before the data are opened, their number is not known.
    check_training(_config(total_epochs=10_000, batch_size=1))


def test_defaults() -> None:
    assert make_training_schedule(_config(total_steps=400), 10) == TrainingSchedule(400, 0, 4, 0, 0)
    assert make_training_schedule(_config(total_steps=1), 10).log == 1


def test_events_end_at_their_intervals_and_at_the_last_step() -> None:
    schedule = TrainingSchedule(total=10, warmup=0, log=4, evaluate=3, checkpoint=0)
    step, events = 0, []
    while step < schedule.total:
        step += schedule.steps_to_event(step, limit=2)
        due = [
            name
            for name, interval in (("log", 4), ("evaluate", 3), ("checkpoint", 0))
            if schedule.due(step, interval)
        ]
        if due:
            events.append((step, *due))
    assert events == [
        (3, "evaluate"),
        (4, "log"),
        (6, "evaluate"),
        (8, "log"),
        (9, "evaluate"),
        (10, "log", "evaluate", "checkpoint"),
    ]
