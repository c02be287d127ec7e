"""Trains a model: `python -m trainers.train --config=FILE --workdir=DIR`.

The same command run again resumes. The rule of resuming:

1. The newest valid checkpoint of the work directory gives weights, optimizer and step, and
   the sums of the training row that was being filled. Without one, `init_from` gives the
   weights if it is set.
2. Rows of metrics.jsonl and points of TensorBoard after that step are dropped.
3. The data resumes at that step: its order is a function of the seed and the step.
4. Dropout masks are a function of the seed and the step, so nothing else is needed.

So a run that was killed ends with the arrays and the rows of one that was not, apart from
times. A run made longer evaluates its final split again, at its end.
"""

import zlib
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import keras
from absl import flags
from ml_collections import ConfigDict

from tokenlearner_keras.models.names import ModelConfig
from trainers.aot.memory_report import print_memory
from trainers.checkpointing.init_from import initialize
from trainers.checkpointing.state import training_arrays
from trainers.checkpointing.store import CheckpointStore
from trainers.checkpointing.workdir import check_same_data
from trainers.checkpointing.workdir import make_workdir
from trainers.checkpointing.workdir import prepare_workdir
from trainers.checkpointing.workdir import read_file_splits
from trainers.checkpointing.workdir import save_model
from trainers.configuration.configuration import parse_config_flag
from trainers.configuration.schedule import TrainingSchedule
from trainers.configuration.schedule import make_training_schedule
from trainers.data.bad_examples import BadExamples
from trainers.data.bad_examples import BadExamplesFile
from trainers.data.decode_errors import explain_data_failures
from trainers.data.pipeline import examples_at_step
from trainers.data.sources import Source
from trainers.data.sources import make_source
from trainers.engines.batches import training_batches
from trainers.engines.engine import Engine
from trainers.engines.flags import define_flags as define_engine_flags
from trainers.engines.flags import make_engine
from trainers.evaluation.sets import configured_sets
from trainers.experiment import make_evaluator
from trainers.experiment import make_model
from trainers.experiment import make_model_config
from trainers.experiment import make_preprocessing
from trainers.experiment import make_records
from trainers.experiment import make_train_step
from trainers.preflight import check_configuration
from trainers.preflight import check_optimizer
from trainers.preflight import check_sources
from trainers.preflight import describe_data
from trainers.preflight import describe_model
from trainers.preflight import failures_are_findings
from trainers.preflight import log_notes
from trainers.preflight import run_one_step_each
from trainers.steps.ema import averaged_weights
from trainers.steps.optimizer import make_learning_rate
from trainers.training.log import TrainingLog
from trainers.training.non_finite import Replay
from trainers.training.non_finite import check_finite
from trainers.training.profiling import StepProfiler
from trainers.training.profiling import parse_profile_steps
from trainers.training.resume import restore
from trainers.training.resume import resume
from trainers.utils import cli
from trainers.utils import files
from trainers.utils.errors import Interrupted
from trainers.utils.lock import WorkdirLock
from trainers.utils.reporting import MetricsWriter
from trainers.utils.reporting import ProgressLine
from trainers.utils.reporting import format_metrics
from trainers.utils.reporting import log_to_stderr
from trainers.utils.reporting import read_metrics
from trainers.utils.reporting import show_warnings_plainly
from trainers.utils.signals import StopRequest

FLAGS = flags.FLAGS
cli.define_path("workdir", "Where checkpoints, metrics and the model go.")
define_engine_flags()
flags.DEFINE_bool("dry_run", False, "Check all, run one step of each kind, write nothing.")
flags.DEFINE_string("profile_steps", None, "A:B writes a TensorBoard profile of these steps.")


def main() -> None:
    """Trains or, in a dry run, finds what would make a training fail."""
    with failures_are_findings() if FLAGS.dry_run else nullcontext(), WorkdirLock() as lock:
        train(lock)


def train(lock: WorkdirLock) -> None:
    """Trains, evaluates and saves; every stage is named once, in order."""
    show_warnings_plainly()
    stop = StopRequest().install()
    config = FLAGS.config
    check_configuration(config, FLAGS.workdir)
    profile_steps = parse_profile_steps(FLAGS.profile_steps)

    # ------------------------------------------------------------------ devices
    engine = make_engine(FLAGS)
    print(engine.describe(), flush=True)
    hosts = engine.hosts
    hosts.check_same("the configuration (checksums)", zlib.crc32(str(config).encode()))
    check_optimizer(config.optimizer)

    # --------------------------------------------------------------------- data
    final_split = config.data.final_split
    with hosts.all_succeed():
        records = make_records(config)
        listed = read_file_splits(FLAGS.workdir)
        train_source = _source(config, config.data.train_split, None, listed)
        class_names = train_source.class_names
        file_splits = getattr(train_source, "file_splits", {})
        eval_sources = {
            each.name: each.open(train_source.num_classes, class_names, records, file_splits)
            for each in configured_sets(config.data)
        }
        final_source = None
        if final_split:
            final_source = _source(config, final_split, class_names, file_splits)
        check_same_data(FLAGS.workdir, train_source)
    checksum = zlib.crc32(repr(sorted(file_splits.items())).encode())
    hosts.check_same("how the files are split (checksums)", checksum)
    log_notes(train_source, *eval_sources.values(), final_source)
    main_set = next(iter(eval_sources))  # the best checkpoint is best by this one
    schedule = make_training_schedule(config, train_source.num_examples)
    print(describe_data(train_source, eval_sources, schedule.total), flush=True)

    # -------------------------------------------------------- model and optimizer
    model_config = make_model_config(config, train_source.num_classes)
    preprocessing = make_preprocessing(config, model_config)
    check_sources(config, preprocessing, train_source, eval_sources)
    make_fresh = partial(_fresh_model, config, model_config, schedule, engine)
    model, optimizer = make_fresh()
    print(describe_model(model), flush=True)

    # ------------------------------------------------------------------- resume
    workdir = FLAGS.workdir
    store = CheckpointStore(
        files.join(workdir, "checkpoints"),
        config.keep_checkpoints,
        log_to_stderr,
        config.keep_best_metric,
    )
    with hosts.all_succeed():
        step, saved = resume(store, model, optimizer, schedule.total)
    hosts.check_same("the step to go on from", step)
    if not saved and config.init_from:
        print(f"{config.init_from}: {initialize(model, config.init_from)}", flush=True)

    # ----------------------------------------------------------------- training
    bad_examples = BadExamples(train_source, config.data.max_bad_examples, log_to_stderr)
    batches_after = partial(
        training_batches,
        train_source,
        preprocessing,
        engine,
        batch_size=config.batch_size,
        seed=config.seed,
        mixup_alpha=config.data.mixup_alpha,
        bad_examples=bad_examples,
    )
    batches = batches_after(start_step=step)
    train_step = make_train_step(config, model, optimizer, engine)
    evaluator = make_evaluator(config, model, optimizer, engine, preprocessing)
    output = hosts.output_directory(workdir)
    profiler = StepProfiler(engine, output, profile_steps, schedule.total)
    if FLAGS.dry_run:
        sources = {**eval_sources, **({final_split: final_source} if final_source else {})}
        examples = partial(_examples, config, train_source, step, 1)
        explained = explain_data_failures(train_source, examples)
        with hosts.explain_lost_hosts(), explained, bad_examples.explain():
            run_one_step_each(train_step, evaluator, batches, step, sources, final_split)
        main_source = eval_sources[main_set]
        print_memory(config, model_config, preprocessing, engine, train_source, main_source)
        hosts.barrier()
        print("dry run: everything fits together; nothing was written", flush=True)
        return
    # Everything has been checked: from here on the directory belongs to this run.
    with hosts.all_succeed():
        make_workdir(output)
        lock.acquire(output)
        prepare_workdir(output, config, model_config, train_source)
    replay = Replay(
        train_step,
        batches_after,
        partial(restore, store, model, optimizer, partial(make_fresh, config.init_from)),
        config.steps_per_loop,
        lambda: stop.signal_number is not None,
    )
    bad_examples_file = BadExamplesFile(files.join(output, "bad_examples.jsonl"))
    bad_examples.remember_in(bad_examples_file)
    evaluator.list_bad_examples_in(bad_examples_file)
    writer = MetricsWriter(output, step)
    unit = "images" if model_config.num_frames is None else "clips"
    progress = ProgressLine(schedule.total, step, config.batch_size, unit)
    with progress, stop.deferred(), store, hosts.explain_lost_hosts(), profiler:
        learning_rate = make_learning_rate(
            config.optimizer, warmup_steps=schedule.warmup, total_steps=schedule.total
        )
        log = TrainingLog(writer, learning_rate, config.batch_size, bad_examples)
        log.load(saved)
        while step < schedule.total:
            profiler.update(step)
            num_steps = schedule.steps_to_event(step, config.steps_per_loop)
            num_steps = profiler.limit(step, num_steps)
            examples = partial(_examples, config, train_source, step, num_steps)
            explained = explain_data_failures(train_source, examples)
            log.restart_clock()
            with replay.explain(step, num_steps), explained, bad_examples.explain():
                log.add(train_step.run(batches, step, num_steps), num_steps)
            step += num_steps
            progress.update(step, log.steps_per_second, log.data_wait)
            if schedule.due(step, schedule.log):
                log.write(step)
            metrics = None
            if schedule.due(step, schedule.evaluate):
                results = {}
                for name, source in eval_sources.items():
                    results[name] = evaluator.evaluate(source)
                    writer.write(step, name, results[name])
                    progress.log(f"step {step}: {name} {format_metrics(results[name])}")
                metrics = results[main_set]
            stopped = hosts.max(stop.signal_number or 0)
            best = hosts.is_chief and metrics is not None and store.is_best(step, metrics)
            due = schedule.due(step, schedule.checkpoint)
            if hosts.is_chief and (stopped or best or due):
                writer.fsync()
                arrays = training_arrays(
                    model, optimizer, log.arrays(), seed=config.seed, step=step
                )
                check_finite(arrays, step)
                store.save(step, arrays, metrics)
            if stopped:
                store.wait()
                hosts.barrier()
                raise Interrupted(
                    f"stopped by signal {stopped} at step {step}; the checkpoint is saved, "
                    "the same command goes on from there",
                    stopped,
                )

    # ---------------------------------------------------- final model and test set
    with averaged_weights(model, optimizer):
        save_model(model, output)
    with hosts.explain_lost_hosts():
        if final_source is not None:
            final = _final_metrics(workdir, final_split, step)
            if final is None:
                final = evaluator.evaluate(final_source, views=True)
                writer.write(step, final_split, final)
            print(
                f"{final_split} (evaluated once, after training): {format_metrics(final)}",
                flush=True,
            )
        writer.close()
        hosts.barrier()
    for each in (bad_examples, *evaluator.bad_examples):
        if each.count:
            print(each.report(), flush=True)
    print(f"finished: {workdir}", flush=True)


def _source(
    config: ConfigDict,
    split: str,
    class_names: tuple[str, ...] | None,
    file_splits: Mapping[str, str] | None,
) -> Source:
    data = config.data
    records = make_records(config)
    return make_source(data.source, split, data.data_dir, class_names, records, file_splits)


def _fresh_model(
    config: ConfigDict,
    model_config: ModelConfig,
    schedule: TrainingSchedule,
    engine: Engine,
    init_from: str | None = None,
) -> tuple[keras.Model, keras.optimizers.Optimizer]:
    with engine.scope():
        model, optimizer = make_model(config, model_config, schedule)
    if init_from:
        print(f"{init_from}: {initialize(model, init_from)}", flush=True)
    return model, optimizer


def _examples(config: ConfigDict, source: Source, step: int, num_steps: int) -> Iterator[int]:
    """Yields the examples of a block of steps, for naming one that is damaged."""
    # Batches are prepared ahead, so the damaged one may be a few steps later.
    for each in range(step, step + num_steps + 16):
        indices = examples_at_step(
            each,
            num_examples=source.num_examples,
            batch_size=config.batch_size,
            seed=config.seed,
        )
        yield from map(int, indices)


def _final_metrics(workdir: str, split: str, step: int) -> dict[str, float] | None:
    """Returns the metrics of the final split if a finished run has written them."""
    for row in read_metrics(files.join(workdir, "metrics.jsonl")):
        if row["split"] == split and row["step"] == step:
            return {k: v for k, v in row.items() if k not in ("step", "split")}
    return None


if __name__ == "__main__":
    cli.run(main, parse_config_flag)
