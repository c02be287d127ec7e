"""Trains a model: `python -m trainers.train --config=FILE --workdir=DIR`, or `train(...)`.

The same command or call, again, resumes. The rule of resuming:

1. The newest valid checkpoint of the work directory gives weights, optimizer and step, and
   the sums of the training row that was being filled. Without one, `init_from` gives the
   weights if it is set.
2. Rows of metrics.jsonl and points of TensorBoard after that step are dropped.
3. The data resumes at that step: its order is a function of the seed and the step.
4. Dropout masks are a function of the seed and the step, so nothing else is needed.

So a run that was killed ends with the arrays and the rows of one that was not, apart from
times. A run made longer evaluates its final split again, at its end.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import ExitStack
from contextlib import contextmanager
from contextlib import nullcontext
from functools import partial

import keras
from absl import flags
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.memory_report import print_memory
from trainers.checkpointing.checkpoint_file import Arrays
from trainers.checkpointing.init_from import initialize
from trainers.checkpointing.state import resume
from trainers.checkpointing.store import CheckpointStore
from trainers.checkpointing.workdir import prepare_workdir
from trainers.checkpointing.workdir import save_model
from trainers.configuration.configuration import AnyConfig
from trainers.configuration.configuration import parse_config_flag
from trainers.configuration.configuration import whole_config
from trainers.configuration.schedule import TrainingSchedule
from trainers.configuration.schedule import make_training_schedule
from trainers.data.bad_examples import BadExamples
from trainers.data.bad_examples import BadExamplesFile
from trainers.data.decode_errors import explain_data_failures
from trainers.data.preprocessing.examples import Preprocessing
from trainers.data.shuffling import examples_near_steps
from trainers.engines.batches import training_batches
from trainers.engines.engine import Engine
from trainers.engines.flags import define_flags as define_engine_flags
from trainers.engines.flags import engine_arguments
from trainers.engines.flags import make_engine
from trainers.evaluation.evaluator import Evaluator
from trainers.experiment import TrainingData
from trainers.experiment import make_class_weights
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.experiment import make_train_step
from trainers.experiment import open_training_data
from trainers.preflight import check_configuration
from trainers.preflight import check_sources
from trainers.preflight import describe_class_weights
from trainers.preflight import describe_data
from trainers.preflight import describe_model
from trainers.preflight import failures_are_findings
from trainers.preflight import log_notes
from trainers.preflight import run_one_step_each
from trainers.steps.optimizer import averaged_weights
from trainers.steps.optimizer import make_learning_rate
from trainers.steps.train_step import TrainStep
from trainers.training.log import TrainingLog
from trainers.training.loop import Metrics
from trainers.training.loop import TrainingLoop
from trainers.training.non_finite import Batches
from trainers.training.non_finite import Replay
from trainers.training.profiling import StepProfiler
from trainers.training.profiling import parse_profile_steps
from trainers.utils import cli
from trainers.utils import files
from trainers.utils import process
from trainers.utils.files import AnyPath
from trainers.utils.lock import workdir_lock
from trainers.utils.reporting import MetricsWriter
from trainers.utils.reporting import ProgressLine
from trainers.utils.reporting import format_metrics
from trainers.utils.reporting import log_to_stderr
from trainers.utils.reporting import read_metrics
from trainers.utils.signals import StopRequest

FLAGS = flags.FLAGS


def train(
    config: AnyConfig,
    workdir: AnyPath,
    *,
    engine: str | None = None,
    strategy: str = "auto",
    virtual_devices: int | None = None,
    dry_run: bool = False,
    tpu: str | None = None,
    batch_axis: int | None = None,
    model_axis: int = 1,
    profile_steps: str | None = None,
) -> dict[str, Metrics]:
    """Trains, evaluates and saves a model, or resumes where an earlier call was stopped.

    In the main thread Ctrl-C saves a checkpoint before it ends the call.

    Args:
        config: The path of a recipe, or a `ConfigDict` with the keys that differ from
            `base_config()`, which stays as it is.
        workdir: Where checkpoints, metrics and the model go.
        engine, strategy, virtual_devices, tpu, batch_axis, model_axis: See `make_engine`.
        dry_run: Whether to check all, run one step of each kind, and write nothing.
        profile_steps: "A:B" writes a TensorBoard profile of these steps.

    Returns:
        The metrics of each split at its last evaluation; nothing after a dry run.

    Raises:
        ConfigurationError: If an argument, a key, or the kind of the data is wrong.
        DataError: If an example cannot be read.
        TrainingError: If the training cannot continue.
        Interrupted: If a signal came; a training that has begun has saved a checkpoint.
    """
    config, workdir = whole_config(config), files.path_text(workdir)
    with (
        failures_are_findings() if dry_run else nullcontext(),
        ExitStack() as stack,
        StopRequest().listening() as stop,
    ):
        check_configuration(config, workdir)
        profiled = parse_profile_steps(profile_steps)
        devices = make_engine(
            engine,
            strategy=strategy,
            tpu=tpu,
            virtual_devices=virtual_devices,
            batch_axis=batch_axis,
            model_axis=model_axis,
        )
        print(devices.describe(), flush=True)
        run = _prepare(config, workdir, devices)
        profiler = StepProfiler(devices, run.output, profiled, run.schedule.total)
        if dry_run:
            _rehearse(run)
            return {}
        # Everything has been checked: from here on the directory belongs to this run.
        with devices.hosts.all_succeed():
            files.check_writable(run.output, f"--workdir={run.output}")
            stack.enter_context(workdir_lock(run.output))
            prepare_workdir(run.output, config, run.model_config, run.data.train)
        writer = MetricsWriter(run.output, run.step)
        _run_steps(run, writer, profiler, stop)
        _finish(run, writer)
    print(f"finished: {workdir}", flush=True)
    rows = _last_rows(run)
    names = (*run.data.evaluation, config.data.final_split)
    return {name: rows[name][1] for name in names if name in rows}


@dataclasses.dataclass(frozen=True)
class _Run:
    """The parts of a training that has done `step` steps."""

    config: ConfigDict
    workdir: str
    output: str  # the work directory; on a host that does not write, a temporary one
    engine: Engine
    data: TrainingData
    schedule: TrainingSchedule
    model_config: ModelConfig
    preprocessing: Preprocessing
    train_step: TrainStep
    evaluator: Evaluator
    store: CheckpointStore
    step: int
    saved: Arrays  # of the checkpoint that it resumes from
    bad_examples: BadExamples
    batches_after: Batches

    def explain_data(self, step: int, num_steps: int) -> AbstractContextManager[None]:
        """Names the file or the example if the data of these steps cannot be read."""
        examples = partial(
            examples_near_steps,
            step,
            num_steps,
            num_examples=self.data.train.num_examples,
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        )
        return explain_data_failures(self.data.train, examples)

    def fresh(self) -> tuple[keras.Model, keras.optimizers.Optimizer]:
        """Returns model and optimizer as they are at the beginning."""
        with self.engine.scope():
            model, optimizer = make_model(self.config, self.model_config, self.schedule)
        _initialize(model, self.config)
        return model, optimizer


def _prepare(config: ConfigDict, workdir: str, engine: Engine) -> _Run:
    """Opens the data, builds the model and loads the newest checkpoint; writes nothing."""
    hosts = engine.hosts
    hosts.check_same("the configuration (checksums)", zlib.crc32(str(config).encode()))
    data = open_training_data(config, workdir, hosts)
    log_notes(data.train, *data.evaluation.values(), data.final)
    schedule = make_training_schedule(config, data.train.num_examples)
    print(describe_data(data.train, data.evaluation, schedule.total), flush=True)
    model_config = make_model_config(config, data.train.num_classes)
    preprocessing = make_preprocessing(config, model_config)
    check_sources(config, preprocessing, data.train, data.evaluation)
    with engine.scope():
        model, optimizer = make_model(config, model_config, schedule)
    print(describe_model(model), flush=True)
    class_weights = None
    if config.class_weights is not None:
        with hosts.all_succeed():
            class_weights = make_class_weights(config, data.train)
        hosts.check_same("the class weights (checksums)", zlib.crc32(repr(class_weights).encode()))
        print(describe_class_weights(class_weights, data.train.class_names), flush=True)
    store = CheckpointStore(
        files.join(workdir, "checkpoints"),
        config.keep_checkpoints,
        log_to_stderr,
        config.keep_best_metric,
    )
    with hosts.all_succeed():
        step, saved = resume(store, model, optimizer, schedule.total)
    hosts.check_same("the step to resume from", step)
    if not saved:
        _initialize(model, config)
    bad_examples = BadExamples(data.train, config.data.max_bad_examples, log_to_stderr)
    return _Run(
        config,
        workdir,
        hosts.output_directory(workdir),
        engine,
        data,
        schedule,
        model_config,
        preprocessing,
        make_train_step(config, model, optimizer, engine, class_weights),
        make_evaluator(config, model, optimizer, engine, preprocessing),
        store,
        step,
        saved,
        bad_examples,
        partial(
            training_batches,
            data.train,
            preprocessing,
            engine,
            batch_size=config.batch_size,
            seed=config.seed,
            mixup_alpha=config.data.mixup_alpha,
            cutmix_alpha=config.data.cutmix_alpha,
            bad_examples=bad_examples,
        ),
    )


def _initialize(model: keras.Model, config: ConfigDict) -> None:
    if config.init_from:
        print(f"{config.init_from}: {initialize(model, config.init_from)}", flush=True)


def _rehearse(run: _Run) -> None:
    """Runs one step of each kind, and prints their results and their memory."""
    config, data, hosts = run.config, run.data, run.engine.hosts
    final_split = config.data.final_split
    sources = {**data.evaluation, **({final_split: data.final} if data.final else {})}
    batches = run.batches_after(start_step=run.step)
    with hosts.explain_lost_hosts(), run.explain_data(run.step, 1), run.bad_examples.explain():
        run_one_step_each(run.train_step, run.evaluator, batches, run.step, sources, final_split)
    main_source = next(iter(data.evaluation.values()))
    print_memory(config, run.model_config, run.preprocessing, run.engine, data.train, main_source)
    hosts.barrier()
    print("dry run: everything fits together; nothing was written", flush=True)


def _run_steps(run: _Run, writer: MetricsWriter, profiler: StepProfiler, stop: StopRequest) -> None:
    """Trains to the end."""
    config, schedule, hosts = run.config, run.schedule, run.engine.hosts
    bad_examples_file = BadExamplesFile(files.join(run.output, "bad_examples.jsonl"))
    run.bad_examples.remember_in(bad_examples_file)
    run.evaluator.list_bad_examples_in(bad_examples_file)
    replay = Replay(
        run.train_step,
        run.batches_after,
        run.store,
        run.fresh,
        config.steps_per_loop,
        lambda: stop.signal_number is not None,
    )

    @contextmanager
    def explain(step: int, num_steps: int) -> Iterator[None]:
        explained = run.explain_data(step, num_steps)
        with replay.explain(step, num_steps), explained, run.bad_examples.explain():
            yield

    unit = "images" if run.model_config.num_frames is None else "clips"
    progress = ProgressLine(schedule.total, run.step, config.batch_size, unit)
    # Deleting an iterator can take a minute: TensorFlow waits for its tuning thread, which sleeps.
    batches = process.keep(run.batches_after(start_step=run.step))
    with progress, stop.deferred(), run.store, hosts.explain_lost_hosts(), profiler:
        learning_rate = make_learning_rate(
            config.optimizer, warmup_steps=schedule.warmup, total_steps=schedule.total
        )
        log = TrainingLog(writer, learning_rate, config.batch_size, run.bad_examples)
        log.load(run.saved)
        loop = TrainingLoop(
            schedule,
            config.steps_per_loop,
            run.train_step,
            run.evaluator,
            run.data.evaluation,
            run.store,
            hosts,
            stop,
            profiler,
            log,
            writer,
            progress,
            explain,
        )
        loop.run(batches, run.step)


def _finish(run: _Run, writer: MetricsWriter) -> None:
    """Saves the model, evaluates the final split and reports on unreadable examples."""
    total, final_split, hosts = run.schedule.total, run.config.data.final_split, run.engine.hosts
    with averaged_weights(run.train_step.model, run.train_step.optimizer):
        save_model(run.train_step.model, run.output)
    with hosts.explain_lost_hosts():
        if run.data.final is not None:
            # A run that had finished has them already.
            step, final = _last_rows(run).get(final_split, (0, {}))
            if step != total:
                final = run.evaluator.evaluate(run.data.final, views=True)
                writer.write(total, final_split, final)
            print(
                f"{final_split} (evaluated once, after training): {format_metrics(final)}",
                flush=True,
            )
        writer.close()
        hosts.barrier()
    for each in (run.bad_examples, *run.evaluator.bad_examples):
        if each.count:
            print(each.report(), flush=True)


def _last_rows(run: _Run) -> dict[str, tuple[int, Metrics]]:
    """Returns the step and the metrics of the last row of each split, by its name."""
    found = {}
    for row in read_metrics(files.join(run.workdir, "metrics.jsonl")):
        split, step = row.pop("split"), row.pop("step")
        found[split] = (step, row)
    return found


def define_flags(flag_values: flags.FlagValues = FLAGS) -> None:
    """Defines the flags of this command, apart from --config."""
    values = {"flag_values": flag_values}
    cli.define_path("workdir", "Where checkpoints, metrics and the model go.", **values)
    define_engine_flags(flag_values)
    flags.DEFINE_bool(
        "dry_run", False, "Check all, run one step of each kind, write nothing.", **values
    )
    flags.DEFINE_string(
        "profile_steps", None, "A:B writes a TensorBoard profile of these steps.", **values
    )


def main() -> None:
    """Trains as the flags say."""
    train(
        FLAGS.config,
        FLAGS.workdir,
        dry_run=FLAGS.dry_run,
        profile_steps=FLAGS.profile_steps,
        **engine_arguments(FLAGS),
    )


if __name__ == "__main__":
    define_flags()
    cli.run(main, parse_config_flag)
