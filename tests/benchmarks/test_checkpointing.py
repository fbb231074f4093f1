import pytest

from benchmarks.checkpointing import BLOCK, Blocks, Finished


def test_blocks_take_turns_and_the_first_two_are_not_counted():
    saved_at = []
    blocks = Blocks(2, lambda: saved_at.append(blocks.steps // BLOCK))
    for _ in range(6 * BLOCK - 1):
        blocks()
    with pytest.raises(Finished):
        blocks()
    assert saved_at == [1, 3, 5]
    # Block 4 is the slow one without a checkpoint, blocks 3 and 5 have one.
    blocks.seconds = [(9.0, 9.0), (9.0, 9.0), (1.0, 0.5), (2.0, 1.0), (3.0, 1.5), (4.0, 2.0)]
    blocks.saves = [9.0, 0.1, 0.3]
    wall, cpu, save = blocks.rows()
    assert (wall.candidate * BLOCK, wall.reference * BLOCK) == pytest.approx((3.0, 2.0))
    assert (cpu.candidate * BLOCK, cpu.reference * BLOCK) == pytest.approx((1.5, 1.0))
    assert save.candidate == pytest.approx(0.2)
