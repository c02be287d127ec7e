"""Runs layers and models: forward, with gradients, or a training step, on each backend."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from benchmarks.worker import Implementation

Arrays = dict[str, np.ndarray]
#: By direction.
Runs = dict[str, Callable[[], Any]]


def layer_implementation(
    layer: keras.layers.Layer,
    inputs: Arrays,
    cotangent: np.ndarray,
    direction: str,
    mode: str,
    *packages: str,
) -> Implementation:
    """Returns the implementation of a built layer.

    The direction is `forward`, or `both` for the gradients of inputs and weights too. The mode is
    `graph` or `xla` on TensorFlow, `jit` on JAX, `eager` or `compile` on PyTorch.
    """
    makers = {"tensorflow": _tensorflow_layer, "jax": _jax_layer, "torch": torch_layer_runs}
    make = makers[keras.backend.backend()]
    run = make(layer, list(inputs.values()), cotangent, mode)[direction]

    def result() -> Arrays:
        if direction == "forward":
            return {"output": np.asarray(run())}
        return {name: np.asarray(g) for name, g in zip(inputs, run()[0], strict=True)}

    return Implementation(run, (*packages, "keras", keras.backend.backend()), result)


def _tensorflow_layer(layer: Any, inputs: list[Any], cotangent: Any, mode: str) -> Runs:
    import tensorflow as tf

    constants = [tf.constant(array) for array in inputs]
    weight = tf.constant(cotangent)
    variables = [variable.value for variable in layer.trainable_variables]

    @tf.function(jit_compile=mode == "xla")
    def forward(arrays: list[Any]) -> Any:
        return layer(*arrays)

    @tf.function(jit_compile=mode == "xla")
    def both(arrays: list[Any]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(arrays)
            loss = tf.reduce_sum(layer(*arrays) * weight)
        return tape.gradient(loss, (arrays, variables))

    # Reading the results waits for them.
    return {
        "forward": lambda: forward(constants).numpy(),
        "both": lambda: tf.nest.map_structure(lambda t: t.numpy(), both(constants)),
    }


def _jax_layer(layer: Any, inputs: list[Any], cotangent: Any, mode: str) -> Runs:
    import jax
    import jax.numpy as jnp

    assert mode == "jit"
    arrays = [jnp.asarray(array) for array in inputs]
    weights = [jnp.asarray(variable.value) for variable in layer.trainable_variables]
    cotangent = jnp.asarray(cotangent)

    def call(arrays: list[Any], weights: list[Any]) -> Any:
        return layer.stateless_call(weights, [], *arrays)[0]

    def loss(arrays: list[Any], weights: list[Any]) -> Any:
        return jnp.sum(call(arrays, weights) * cotangent)

    forward = jax.jit(call)
    both = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return {
        "forward": lambda: jax.block_until_ready(forward(arrays, weights)),
        "both": lambda: jax.block_until_ready(both(arrays, weights)),
    }


def torch_layer_runs(module: Any, inputs: list[Any], cotangent: Any, mode: str) -> Runs:
    """Returns the runs of a PyTorch module, which every Keras layer is on that backend."""
    import torch

    tensors = [torch.as_tensor(array).requires_grad_() for array in inputs]
    weight = torch.as_tensor(cotangent)
    called = torch.compile(module, dynamic=False) if mode == "compile" else module

    def forward() -> Any:
        with torch.inference_mode():
            return called(*tensors)

    def both() -> Any:
        for tensor in tensors:
            tensor.grad = None
        (called(*tensors) * weight).sum().backward()
        return [tensor.grad for tensor in tensors], None

    return {"forward": forward, "both": both}


def model_implementation(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    direction: str,
    mode: str,
    *packages: str,
) -> Implementation:
    """Returns the implementation of a model that gives logits.

    The direction is `inference`, `training` with AdamW, or `update`: a training step without what
    leads to its gradients. The modes are those of layers; on PyTorch, `eager` and `compile`.
    """
    if keras.backend.backend() == "torch":
        runs = torch_runs(model, images, labels, mode, training=direction == "training")
        return Implementation(runs[direction], (*packages, "keras", "torch"))
    make = {"tensorflow": _tensorflow_model, "jax": _jax_model}[keras.backend.backend()]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.AdamW(1e-5)
    optimizer.build(model.trainable_variables)
    run = make(model, loss, optimizer, images, labels, mode)[direction]
    return Implementation(run, (*packages, "keras", keras.backend.backend()))


def _tensorflow_model(
    model: Any, loss_function: Any, optimizer: Any, images: Any, labels: Any, mode: str
) -> Runs:
    import tensorflow as tf

    images, labels = tf.constant(images), tf.constant(labels)
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function(jit_compile=mode == "xla")
    def infer(images: Any) -> Any:
        return model(images, training=False)

    @tf.function(jit_compile=mode == "xla")
    def train(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = loss_function(labels, model(images, training=True))
        optimizer.apply(tape.gradient(loss, variables), model.trainable_variables)
        return loss

    @tf.function(jit_compile=mode == "xla")
    def update(gradients: Any) -> Any:
        optimizer.apply(gradients, model.trainable_variables)
        return optimizer.iterations.value

    gradients = [tf.ones_like(variable) for variable in variables]
    return {
        "inference": lambda: infer(images).numpy(),
        "training": lambda: train(images, labels).numpy(),
        "update": lambda: update(gradients).numpy(),
    }


def _jax_model(
    model: Any, loss_function: Any, optimizer: Any, images: Any, labels: Any, mode: str
) -> Runs:
    import jax
    import jax.numpy as jnp

    assert mode == "jit"
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    groups = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    state = [[jnp.asarray(variable.value) for variable in group] for group in groups]

    def loss(weights: Any, others: Any, images: Any, labels: Any) -> Any:
        logits, others = model.stateless_call(weights, others, images, training=True)
        return loss_function(labels, logits), others

    @jax.jit
    def infer(weights: Any, others: Any, images: Any) -> Any:
        return model.stateless_call(weights, others, images, training=False)[0]

    def apply(state: Any, gradients: Any) -> Any:
        weights, others, slots = state
        weights, slots = optimizer.stateless_apply(slots, gradients, weights)
        return [weights, others, slots]

    def step(state: Any, images: Any, labels: Any) -> Any:
        weights, others, slots = state
        (value, others), gradients = jax.value_and_grad(loss, has_aux=True)(
            weights, others, images, labels
        )
        return apply([weights, others, slots], gradients), value

    compiled = jax.jit(step, donate_argnums=0)
    compiled_apply = jax.jit(apply, donate_argnums=0)
    gradients = [jnp.ones_like(value) for value in state[0]]

    def train() -> Any:
        state[:], value = compiled(state, images, labels)
        return jax.block_until_ready(value)

    def update() -> Any:
        state[:] = compiled_apply(state, gradients)
        return jax.block_until_ready(state)

    return {
        "inference": lambda: jax.block_until_ready(infer(state[0], state[1], images)),
        "training": train,
        "update": update,
    }


def torch_runs(model: Any, images: Any, labels: Any, mode: str, **arguments: Any) -> Runs:
    """Returns the runs of a PyTorch module, which every Keras model is on that backend.

    The loop and the optimizer are PyTorch's, so that only the models differ. The module is called
    with the further arguments.
    """
    import torch

    images, labels = torch.as_tensor(images), torch.as_tensor(labels)
    called = torch.compile(model, dynamic=False) if mode == "compile" else model
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(weights, 1e-5)

    def infer() -> Any:
        with torch.inference_mode():
            return called(images, **arguments)

    def train() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(called(images, **arguments), labels)
        loss.backward()
        optimizer.step()
        return loss

    def update() -> None:
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.ones_like(weight)
        optimizer.step()

    return {"inference": infer, "training": train, "update": update}
