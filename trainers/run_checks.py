"""What a run checks before heavy work begins, and what it says about itself."""

import keras
from ml_collections import ConfigDict

from tokenlearner_keras import count_macs
from trainers import files
from trainers.best_checkpoint import check_best_metric
from trainers.checkpoint_files import checkpoint_steps
from trainers.data.normalization import check_normalization
from trainers.data.sources import Source
from trainers.data.sources import check_source
from trainers.errors import ConfigurationError
from trainers.evaluation_sets import configured_sets
from trainers.experiment import check_training
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.initialization import check_init_from
from trainers.workdir import check_workdir


def check_configuration(config: ConfigDict, workdir: str | None) -> None:
    """Checks what no stage checks before heavy work begins.

    Args:
        config: The whole configuration.
        workdir: The work directory; it is only read.

    Raises:
        ConfigurationError: If anything is wrong.
    """
    if keras.backend.backend() != "tensorflow":
        raise ConfigurationError(
            "The trainer runs on Keras' TensorFlow backend. Received KERAS_BACKEND="
            f"{keras.backend.backend()}. Unset it, or set it to tensorflow."
        )
    check_training(config)
    check_best_metric(config.keep_best_metric)
    if not (workdir and checkpoint_steps(files.join(workdir, "checkpoints"))):
        # A run that goes on does not start from it again; it may be gone by then.
        check_init_from(config.init_from)
    # Only the data knows the number of classes; any will do here.
    model_config = make_model_config(config, 2)
    make_preprocessing(config, model_config.image_size)
    check_normalization(config.data.normalization)
    for split in ("train_split", "final_split"):
        if config.data[split]:
            check_source(config.data.source, config.data[split])
    configured_sets(config.data)
    check_workdir(workdir, config, model_config)


def describe_data(train: Source, evaluation: dict[str, Source], total_steps: int) -> str:
    """Returns one line: what is trained and evaluated on, and for how long."""
    sets = ", ".join(f"{source.num_examples} in {name}" for name, source in evaluation.items())
    return (
        f"{train.name}: {train.num_examples} examples to train on, {sets}, "
        f"{train.num_classes} classes, {total_steps} steps"
    )


def describe_model(model: keras.Model) -> str:
    """Returns one line: the model's name, its size and its cost."""
    return (
        f"{model.name}: {model.count_params():,} parameters, "
        f"{count_macs(model) / 1e6:.1f} million MACs an image"
    )
