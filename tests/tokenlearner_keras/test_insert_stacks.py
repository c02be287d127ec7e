"""A TokenLearner inside a layer that calls blocks, and in models with their own configurations."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import tokenlearner_keras as tk
from tests.helpers.arrays import random_inputs
from tests.helpers.arrays import to_numpy
from tests.helpers.encoders import encoder
from tokenlearner_keras.models.insert import insert_token_learner

pytestmark = pytest.mark.every_backend


class Block(layers.Layer):
    """A residual block of two layers."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.norm = layers.LayerNormalization()
        self.attention = layers.MultiHeadAttention(2, 4)

    def build(self, shape: Any) -> None:
        self.norm.build(shape)
        self.attention.build(shape, shape)

    def call(self, x: Any) -> Any:
        y = self.norm(x)
        return x + self.attention(y, y)


class Stack(layers.Layer):
    """Blocks in turn, then a norm; `change` is what else `call` does to what they make."""

    def __init__(self, change: Any = None, **options: Any) -> None:
        super().__init__(name="stack", **options)
        self.blocks = [Block(name=f"block_{index}") for index in range(3)]
        self.norm = layers.LayerNormalization(name="last")
        self.change = change

    def build(self, shape: Any) -> None:
        for layer in (*self.blocks, self.norm):
            layer.build(shape)

    def call(self, x: Any, training: bool | None = None) -> Any:
        stages = [x]
        for block in self.blocks:
            stages.append(block(stages[-1]))
        x = self.norm(stages[-1])
        return x if self.change is None else self.change(x, stages, training)


def _model(change: Any = None) -> keras.Model:
    inputs = keras.Input((12, 8))
    stack = Stack(change)
    x = layers.Lambda(lambda x: x[0] if isinstance(x, list) else x, name="first")(stack(inputs))
    return keras.Model(inputs, layers.GlobalAveragePooling1D(name="pool")(x))


def test_a_block_of_a_stack_is_found_and_takes_the_tokens() -> None:
    model = _model()
    stack, x = model.get_layer("stack"), random_inputs(model)
    learner = tk.TokenLearnerV11(3, name="learner")
    inserted = insert_token_learner(model, "block_1", learner)
    expected = learner(stack.blocks[0](x))
    expected = stack.norm(stack.blocks[2](stack.blocks[1](expected)))
    assert np.allclose(to_numpy(inserted(x)), to_numpy(expected).mean(1), atol=1e-5)
    assert {id(w) for w in stack.weights} < {id(w) for w in inserted.weights}
    assert [*tk.attention_maps(inserted, x)] == ["stack/learner"]
    assert tk.count_macs(inserted) < tk.count_macs(model)
    # A block is no stack: its layers are not all of one kind.
    with pytest.raises(ValueError, match="Received: 'attention'.* Found: .*stack/block_2, "):
        insert_token_learner(model, "attention")


def test_all_outputs_of_a_stack_change() -> None:
    inputs = keras.Input((12, 8))
    model = keras.Model(inputs, Stack(lambda x, stages, training: [x, *stages[1:]])(inputs))
    inserted = insert_token_learner(model, "block_2", tk.TokenLearnerV11(3))
    assert [x.shape[1] for x in inserted.output] == [3, 12, 12, 3]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x, stages, training: 2 * x if training else x, "something else in training"),
        (lambda x, stages, training: np.asarray(x), "does inside cannot be read"),
    ],
    ids=["training", "array"],
)
def test_stacks_that_a_graph_cannot_hold_are_refused(change: Any, reason: str) -> None:
    stack, inputs = Stack(change), keras.Input((12, 8))
    stack.compute_output_shape = lambda shape, **_: shape
    model = keras.Model(inputs, stack(inputs))
    calls = [len(layer._inbound_nodes) for layer in stack._flatten_layers()]
    with pytest.raises(ValueError, match=reason):
        insert_token_learner(model, "block_1")
    assert [len(layer._inbound_nodes) for layer in stack._flatten_layers()] == calls


def test_a_stack_that_leaves_out_a_block_is_not_opened() -> None:
    stack, inputs = Stack(), keras.Input((12, 8))
    outputs = stack(inputs)
    stack.call = lambda x: stack.blocks[0](x)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="'stack' of type Stack cannot be opened: not all of its"):
        insert_token_learner(keras.Model(inputs, outputs), "block_0")


@keras.saving.register_keras_serializable(package="tests")
class Backbone(keras.Model):
    """A functional model with its own configuration; its stack has none."""

    def __init__(self, positions: int = 12, **options: Any) -> None:
        inputs = keras.Input((positions, 8))
        x = Stack()(layers.Dropout(0.1)(inputs))  # Keras numbers the dropout
        super().__init__(inputs, layers.GlobalAveragePooling1D(name="pool")(x), **options)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.mark.parametrize("before", ["stack/block_1", "stack", "dropout"])
def test_a_model_is_made_again_from_its_configuration(before: str, tmp_path: Path) -> None:
    backbone = Backbone(name="backbone")
    (dropout,) = (each for each in backbone.layers if isinstance(each, layers.Dropout))
    before = dropout.name if before == "dropout" else before
    first = insert_token_learner(backbone, before, tk.TokenLearnerV11(6, name="first"))
    model = insert_token_learner(
        first, "block_2", tk.TokenLearnerV11(3, name="second"), num_prefix_tokens=1
    )
    backbone.get_layer("stack").blocks[0].trainable = False
    inputs = keras.Input((12, 8))
    outer = keras.Model(inputs, layers.Dense(2)(model(inputs)))
    model.compile("sgd", "mse")
    for each in (model, outer):
        each.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        x = random_inputs(each)
        assert np.allclose(to_numpy(loaded(x)), to_numpy(each(x)), atol=1e-6)
        assert len(loaded.trainable_weights) == len(each.trainable_weights)
        assert tk.attention_maps(loaded, x).keys() == tk.attention_maps(each, x).keys()


def test_a_configuration_that_makes_another_model_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inserted = insert_token_learner(Backbone(16), "block_1")
    with pytest.raises(ValueError, match=r"\(None, 16, 8\).* save_weights, build"):
        type(inserted).from_config(inserted.get_config())
    config = insert_token_learner(Backbone(), "block_1").get_config()
    monkeypatch.setattr(Stack, "__init__", lambda self: layers.Layer.__init__(self, name="stack"))
    monkeypatch.setattr(Stack, "build", lambda self, shape: None)
    monkeypatch.setattr(Stack, "call", lambda self, x: x)
    with pytest.raises(ValueError, match="before 'stack/block_1' in .* makes a model of other"):
        type(inserted).from_config(config)


def test_models_of_which_only_the_graph_is_known_are_saved_as_that(tmp_path: Path) -> None:
    class Trained(keras.Model):
        """Adds what no file needs."""

    class Configured(Trained):
        def get_config(self) -> dict[str, Any]:
            return {}

    given = encoder()
    plain = insert_token_learner(Trained(given.input, given.output), "norm_1")
    configured = insert_token_learner(Configured(given.input, given.output), "norm_1")
    for model in (plain, keras.models.clone_model(configured)):
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        x = random_inputs(model)
        assert np.allclose(to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6)
