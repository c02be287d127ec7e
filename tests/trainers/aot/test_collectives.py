"""Collectives counted in optimised HLO, as libtpu 0.0.52 prints it."""

import pytest

from trainers.aot.collectives import Collectives
from trainers.aot.collectives import count_collectives

_WHOLE = """\
HloModule jit__one_step, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %add.1 = f32[]{:T(128)} add(%x, %y)
}

ENTRY %main.99_spmd (param: f32[64,64]) -> (f32[64]) {
  %all-reduce.79 = (f32[8,8,3,64]{3,1,2,0:T(8,128)S(1)}, /*index=1*/bf16[64]{0:T(128)(2,1)}, \
f32[]{:T(128)}) all-reduce(%a, %b, %c), channel_id=1, to_apply=%add
  %get-tuple-element.1 = bf16[64]{0:T(128)(2,1)} get-tuple-element(%all-reduce.79), index=1, \
metadata={op_name="jit(_one_step)/all-reduce("}
  %all-to-all.1 = u8[4,2]{1,0} all-to-all(%d), channel_id=2
  ROOT %all-reduce = pred[] all-reduce(%e), channel_id=1, to_apply=%or
}
"""


def test_results_of_each_kind_are_added_up() -> None:
    reduced = (8 * 8 * 3 * 64 + 1) * 4 + 64 * 2 + 1
    assert count_collectives(_WHOLE) == (
        Collectives("all-reduce", 2, reduced),
        Collectives("all-to-all", 1, 8),
    )
    assert (
        count_collectives("ENTRY %main (x: f32[]) -> f32[] {\n  ROOT %x = f32[] add(%x)\n}") == ()
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "%all-reduce-start.1 = (f32[8]{0}, f32[2]{0}) all-reduce-start(%a, %b), channel_id=3",
            Collectives("all-reduce", 1, 40),
        ),
        (
            "%all-gather-start = ((f32[2,8]{1,0:T(8,128)}, f32[]), (f32[8,8]{1,0}, f32[4]{0})) "
            "all-gather-start(%a, %b)",
            Collectives("all-gather", 1, 4 * 68),
        ),
        (
            "ROOT %p = (bf16[16]{0:T(256)}, bf16[16]{0}, u32[]{:S(2)}, u32[]) "
            "collective-permute-start(%a), source_target_pairs={{0,1}}",
            Collectives("collective-permute", 1, 32),
        ),
        ("%g = s4[8]{0} reduce-scatter(%a), dimensions={0}", Collectives("reduce-scatter", 1, 4)),
        ("%g = f8e4m3fn[8]{0} all-gather(%a)", Collectives("all-gather", 1, 8)),
    ],
)
def test_what_is_started_counts_by_its_result(line: str, expected: Collectives) -> None:
    done = "  %done = f32[8,8]{1,0} all-gather-done(%all-gather-start)"
    assert count_collectives(f"  {line}\n{done}") == (expected,)


def test_an_operation_in_several_pieces_is_one() -> None:
    gather = (
        "%async_collective_fusion.{0} (param: bf16[192,768]) -> bf16[768,768] {{\n"
        "  ROOT %all-gather.{0} = bf16[768,768]{{1,0:T(8,128)(2,1)}} all-gather(%param), "
        'channel_id=7, frontend_attributes={{chain_id="{1}"}}\n}}\n'
    )
    program = "".join(gather.format(*pair) for pair in [(1, 0), (2, 0), (3, 0), (4, 1)])
    assert count_collectives(program) == (Collectives("all-gather", 2, 2 * 768 * 768 * 2),)


def test_the_tpus_own_reduce_scatter() -> None:
    program = (
        "%all-reduce-scatter.{} (input.5: bf16[3072,768]) -> bf16[768,768] {{\n"
        "  %all-reduce.{} = bf16[3072,768]{{1,0:T(8,128)(2,1)}} all-reduce(%input.5), "
        "channel_id=1, to_apply=%add\n"
        "  ROOT %dynamic-slice = bf16[768,768]{{1,0}} dynamic-slice(%all-reduce, %index)\n}}\n"
    )
    two = program.format(5, 75) + program.format(6, 76)
    assert count_collectives(two) == (Collectives("reduce-scatter", 2, 2 * 768 * 768 * 2),)
