"""FLOPs and bytes counted in optimised HLO, some of it as libtpu 0.0.52 prints it."""

from pathlib import Path
from typing import Any

import pytest

from trainers.aot.cost import Cost
from trainers.aot.cost import program_cost

FIXTURES = Path(__file__).parents[2] / "fixtures" / "hlo"

# Two examples, four heads of 64 channels.
_MATMUL_OF_1024 = 2 * 2 * 4 * 64 * 1024**2
_MATMUL_OF_3072 = 2 * 2 * 4 * 64 * 3072**2  # 2601 tokens, filled up to blocks of 512


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        # Two matmuls forwards; then four for keys and values, and three for queries.
        ("splash_backward", (2 + 4 + 3) * _MATMUL_OF_1024),
        # One kernel for the three gradients, with segment ids for the filling.
        ("splash_backward_fused", (2 + 5) * _MATMUL_OF_3072),
    ],
)
def test_flops_of_splash_attention(name: str, flops: int) -> None:
    assert program_cost((FIXTURES / f"{name}.txt").read_text()).flops == flops


def test_loops_count_by_their_trips() -> None:
    # Three times over five matrices, which are read each time; the product stays in VMEM, and is
    # read before the loops and written after them. The rest are the loops' counters.
    cost = program_cost((FIXTURES / "scan_in_scan.txt").read_text())
    assert cost.flops == 3 * 5 * 2 * 2048**3
    assert cost.hbm_bytes == pytest.approx((3 * 5 + 2) * 2 * 2048**2, rel=1e-3)


def _program(*lines: str, before: str = "") -> str:
    return "\n".join(["HloModule m", before, "ENTRY %main () -> f32[] {", *lines, "}"])


_LOOP = """\
%body (state: (s32[], f32[8,8])) -> (s32[], f32[8,8]) {
  %state = (s32[], f32[8,8]{1,0}) parameter(0)
  %counter = s32[] get-tuple-element(%state), index=0
  %values = f32[8,8]{1,0} get-tuple-element(%state), index=1
  %step = s32[] constant(STEP)
  %next = s32[] add(%counter, %step)
  %product = f32[8,8]{1,0} dot(%values, %values), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %result = (s32[], f32[8,8]{1,0}) tuple(%next, %product)
}

%condition (state.1: (s32[], f32[8,8])) -> pred[] {
  %state.1 = (s32[], f32[8,8]{1,0}) parameter(0)
  %counter.1 = s32[] get-tuple-element(%state.1), index=0
  %end = s32[] constant(END)
  ROOT %less = pred[] compare(%counter.1, %end), direction=LT
}
"""


@pytest.mark.parametrize(
    ("start", "step", "end", "known", "trips"),
    [
        ("constant(0)", 1, 5, "", 5),
        ("constant(2)", 2, 9, "", 4),
        ("constant(0)", 1, 5, ', backend_config={"known_trip_count":{"n":"7"}}', 7),
        ("constant(9)", 1, 5, "", 0),
        # Only a run would tell: where it starts, or that it ends.
        ("parameter(0)", 1, 5, "", 1),
        ("constant(0)", 0, 5, "", 1),
    ],
)
def test_trip_counts(start: str, step: int, end: int, known: str, trips: int) -> None:
    program = _program(
        f"  %start = s32[] {start}",
        "  %values.2 = f32[8,8]{1,0} parameter(1)",
        "  %initial = (s32[], f32[8,8]{1,0}) tuple(%start, %values.2)",
        "  ROOT %loop = (s32[], f32[8,8]{1,0}) while(%initial), condition=%condition, "
        f"body=%body{known}",
        before=_LOOP.replace("STEP", str(step)).replace("END", str(end)),
    )
    assert program_cost(program).flops == trips * 2 * 8**3


_HALVES = """\
%body (state: (u32[], u32[])) -> (u32[], u32[]) {
  %state = (u32[], u32[]) parameter(0)
  %low = u32[] get-tuple-element(%state), index=0
  %high = u32[]{:T(128)} get-tuple-element(%state), index=1
  %one = u32[] constant(1)
  %sum = u32[] add(%low, %one)
  %carries = pred[] compare(%sum, %low), direction=LT
  %carried = u32[] add(%high, %one)
  %next_high = u32[] select(%carries, %carried, %high)
  %call = f32[8]{0} custom-call(), backend_config={"cost_estimate":{"flops":"10"}}
  ROOT %result = (u32[], u32[]) tuple(%sum, %next_high)
}

%condition (state.1: (u32[], u32[])) -> pred[] {
  %state.1 = (u32[], u32[]) parameter(0)
  %low.1 = u32[] get-tuple-element(%state.1), index=0
  %high.1 = u32[] get-tuple-element(%state.1), index=1
  %signed = s32[]{:S(6)} bitcast-convert(%high.1)
  %zero = u32[] constant(0)
  %end = u32[] constant(4)
  %negative = pred[] compare(%signed, %zero), direction=LT
  %small = pred[] compare(%high.1, %zero), direction=EQ
  %less = pred[] compare(%low.1, %end), direction=LT
  %both = pred[] and(%small, %less)
  ROOT %either = pred[] or(%negative, %both)
}
"""


def test_a_counter_of_two_halves() -> None:
    # TensorFlow's counters have 64 bits, and a TPU's registers 32.
    program = _program(
        "  %start = u32[] constant(0)",
        "  %initial = (u32[], u32[]) tuple(%start, %start)",
        "  ROOT %loop = (u32[], u32[]) while(%initial), condition=%condition, body=%body",
        before=_HALVES,
    )
    assert program_cost(program).flops == 4 * 10


def test_a_kernel_may_state_its_cost() -> None:
    call = '  ROOT %k.1 = f32[8]{0} custom-call(%a), custom_call_target="tpu_custom_call"'
    config = ', backend_config={"custom_call_config":{"cost_estimate":{"flops":"12"}}}'
    argument = "  %a = f32[8]{0} parameter(0)"
    assert program_cost(_program(argument, call + config)) == Cost(12, 64)
    assert program_cost(_program(argument, call)) == Cost(0, 64)


_FUSED = """\
%fused (a: f32[4,64,128], i: s32[], b: f32[1,64,128]) -> f32[4,64,128] {
  %a = f32[4,64,128]{2,1,0} parameter(0)
  %i = s32[] parameter(1)
  %b = f32[1,64,128]{2,1,0} parameter(2)
  %zero = s32[] constant(0)
  %part = f32[1,64,128]{2,1,0} dynamic-slice(%a, %i, %zero, %zero), dynamic_slice_sizes={1,64,128}
  %sum = f32[1,64,128]{2,1,0} add(%part, %b)
  ROOT %update = f32[4,64,128]{2,1,0} dynamic-update-slice(%a, %sum, %i, %zero, %zero)
}
"""


@pytest.mark.parametrize(
    ("lines", "size"),
    [
        # Filled up to tiles of eight rows and 128 columns.
        (("%a = f32[9,64]{1,0:T(8,128)} parameter(0)", "copy(%a)"), 2 * 4 * 16 * 128),
        (("%a = bf16[64,9]{0,1:T(8,128)(2,1)} parameter(0)", "copy(%a)"), 2 * 2 * 16 * 128),
        # What is in another memory does not go through HBM.
        (("%a = f32[9,64]{1,0:T(8,128)S(1)} parameter(0)", "negate(%a)"), 4 * 16 * 128),
        # Only the part that is read.
        (("%a = f32[4,8,128]{2,1,0} parameter(0)", "slice(%a), slice={[0:1]}"), 2 * 4 * 8 * 128),
    ],
)
def test_bytes_through_hbm(lines: tuple[str, str], size: int) -> None:
    argument, operation = lines
    shape = argument.split()[2].replace("S(1)", "").replace("[4,8,", "[1,8,")
    assert program_cost(_program(f"  {argument}", f"  ROOT %r = {shape} {operation}")) == Cost(
        0, size
    )


def test_a_fusion_that_changes_a_part_in_place() -> None:
    program = _program(
        "  %x = f32[4,64,128]{2,1,0} parameter(0)",
        "  %j = s32[]{:S(6)} parameter(1)",
        "  %y = f32[1,64,128]{2,1,0} parameter(2)",
        "  ROOT %f = f32[4,64,128]{2,1,0} fusion(%x, %j, %y), kind=kLoop, calls=%fused",
        before=_FUSED,
    )
    assert program_cost(program).hbm_bytes == 3 * 4 * 64 * 128


def test_an_asynchronous_copy_counts_once() -> None:
    shape = "f32[8,128]{1,0:T(8,128)"
    program = _program(
        f"  %a = {shape}}} parameter(0)",
        f"  %copy-start = ({shape}S(1)}}, {shape}}}, u32[]{{:S(2)}}) copy-start(%a)",
        f"  ROOT %copy-done = {shape}S(1)}} copy-done(%copy-start)",
    )
    assert program_cost(program).hbm_bytes == 4 * 8 * 128


@pytest.mark.parametrize(
    ("kernel", "options"),
    [
        ((3, 5, 6, 8), {"window_strides": (2, 1), "padding": "SAME"}),
        (
            (3, 5, 6, 8),
            {
                "window_strides": (1, 1),
                "padding": ((2, 1), (0, 3)),
                "lhs_dilation": (3, 2),
                "rhs_dilation": (2, 1),
            },
        ),
        ((3, 3, 1, 12), {"window_strides": (1, 1), "padding": "SAME", "feature_group_count": 6}),
        ((3, 3, 6, 8), {"window_strides": (1, 1), "padding": "SAME", "batch_group_count": 2}),
    ],
)
def test_convolutions_count_as_xla_counts_them(
    kernel: tuple[int, ...], options: dict[str, Any]
) -> None:
    jax = pytest.importorskip("jax")

    def convolve(images: Any, weights: Any) -> Any:
        return jax.lax.conv_general_dilated(
            images, weights, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
        )

    _assert_counted_as_by_xla(convolve, (4, 15, 14, 6), kernel)


def test_matmuls_count_as_xla_counts_them() -> None:
    jax = pytest.importorskip("jax")

    def scores(queries: Any, keys: Any) -> Any:
        return jax.numpy.einsum("bhnd,bhmd->bhnm", queries, keys)

    _assert_counted_as_by_xla(scores, (2, 3, 64, 32), (2, 3, 16, 32))


def _assert_counted_as_by_xla(function: Any, *shapes: tuple[int, ...]) -> None:
    import jax

    arguments = [jax.ShapeDtypeStruct(shape, "float32") for shape in shapes]
    lowered = jax.jit(function).lower(*arguments)
    analysis = lowered.cost_analysis()
    text = lowered.compiler_ir("hlo").as_hlo_module().to_string()
    assert program_cost(text) == Cost(analysis["flops"], analysis["bytes accessed"])
