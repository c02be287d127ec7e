"""Takes a TensorBoard profile of some steps of a training: `--profile_steps=A:B`."""

import re

from trainers.engines.engine import Engine
from trainers.utils import files
from trainers.utils.errors import ConfigurationError
from trainers.utils.files import AnyPath


def parse_profile_steps(text: str | None) -> tuple[int, int] | None:
    """Returns the first and the last step to profile, counted from 1; None without a flag.

    Raises:
        ConfigurationError: If the text is not A:B with 1 <= A <= B.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+):(\d+)", text)
    first, last = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= first <= last:
        raise ConfigurationError(
            "--profile_steps must be A:B, the first and the last step to profile, counted "
            f"from 1, such as 11:20. Received: {text!r}."
        )
    return first, last


class StepProfiler:
    """Profiles a range of steps into `tensorboard/` of the work directory.

    Exiting its context ends a profile that is still being taken.

    `steps` are from `parse_profile_steps`; None profiles nothing. Raises ConfigurationError if the
    training is over before the last of them.
    """

    def __init__(
        self, engine: Engine, workdir: AnyPath, steps: tuple[int, int] | None, total_steps: int
    ) -> None:
        if steps is not None and steps[1] > total_steps:
            raise ConfigurationError(
                f"--profile_steps={steps[0]}:{steps[1]} ends after the training, which has "
                f"{total_steps} steps. Choose earlier steps."
            )
        self.engine = engine
        self.directory = files.join(workdir, "tensorboard")
        # Borders between steps, as numbers of steps done.
        self._borders = (steps[0] - 1, steps[1]) if steps is not None else ()
        self._is_running = False

    def __enter__(self) -> "StepProfiler":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def limit(self, step: int, num_steps: int) -> int:
        """Returns how many of the `num_steps` after `step` to run, up to the next border."""
        return min([num_steps, *(border - step for border in self._borders if border > step)])

    def update(self, step: int) -> None:
        """Starts or ends the profile if it is time; call it between blocks of steps.

        A run that resumes inside the range profiles the rest of it.
        """
        if not self._borders:
            return
        first, last = self._borders
        if self._is_running and step >= last:
            self._stop()
        elif not self._is_running and first <= step < last:
            self.engine.start_profile(self.directory)
            self._is_running = True

    def _stop(self) -> None:
        if self._is_running:
            self._is_running = False
            self.engine.stop_profile()
