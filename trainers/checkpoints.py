"""Lists the checkpoints of a work directory: `python -m trainers.checkpoints --workdir=DIR`.

Prints one line per checkpoint, ascending: `STEP ok SHA256`, or `STEP damaged REASON`. The
sha256 is over the names, types, shapes and bytes of all arrays: two runs of the same
training that end with the same digest have the same weights, optimizer state, random
numbers and sums to resume from, bit for bit.

The exit status is 0 once all of them are listed, damaged or not: damage is a finding of
this command, not a failure. A work directory without checkpoints is wrong usage.
"""

from absl import flags

from trainers.checkpointing.checkpoint_file import DamagedCheckpointError
from trainers.checkpointing.checkpoint_file import checkpoint_steps
from trainers.checkpointing.checkpoint_file import digest
from trainers.checkpointing.checkpoint_file import read_checkpoint
from trainers.utils import cli
from trainers.utils import files
from trainers.utils.errors import ConfigurationError

FLAGS = flags.FLAGS


def main() -> None:
    """Prints the state of every checkpoint."""
    if not FLAGS.workdir:
        raise ConfigurationError("Expected --workdir=DIR of a training. Received none.")
    directory = files.join(FLAGS.workdir, "checkpoints")
    steps = checkpoint_steps(directory)
    if not steps:
        raise ConfigurationError(
            "Expected --workdir=DIR of a training that has saved a checkpoint. Received "
            f"{FLAGS.workdir!r}, where {directory!r} holds none."
        )
    for step in steps:
        try:
            state = f"ok {digest(read_checkpoint(directory, step))}"
        except DamagedCheckpointError as error:
            state = f"damaged {error}"
        print(f"{step} {state}", flush=True)


if __name__ == "__main__":
    cli.define_path("workdir", "The work directory of a training.")
    cli.run(main, cli.parse_known_flags)
