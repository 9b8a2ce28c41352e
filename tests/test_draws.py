"""Random numbers by position: where a stream begins, and that it is Philox's as Salmon et al. 2011 define it."""

from __future__ import annotations

import numpy as np
import pytest
from on_device import Tensor, host

from minitorch_unet import functional as F
from minitorch_unet import manual_seed
from minitorch_unet.backend import Draws, Kernels, reference, take_draws
from minitorch_unet.functional.norm import default_generator

MASK = 2**64 - 1


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    """Four 64-bit words from a counter and a key, in whole numbers of any size."""
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c[0], 2**64)
        high1, low1 = divmod(0xCA5A826395121157 * c[2], 2**64)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B97F4A7C15) & MASK, (k[1] + 0xBB67AE8584CAA73B) & MASK]
    return c


def numbers(draws: Draws, count: int) -> list[float]:
    """The first numbers of a stream: 24 of every 32 bits, the low half of a word before the high one."""
    start = sum(word << 64 * i for i, word in enumerate(draws.counter))
    found: list[float] = []
    for block in range(1, count // 8 + 2):
        counter = tuple((start + block) >> 64 * i & MASK for i in range(4))
        for word in philox(counter, draws.key):
            found += [(word >> shift & 0xFFFFFFFF) // 256 / 2**24 for shift in (0, 32)]
    return found[:count]


@pytest.mark.parametrize("counter", [(0, 0, 0, 0), (5, 6, 7, 8), (MASK - 1, 3, 0, 0), (MASK, MASK, MASK, MASK)])
def test_numbers_are_philoxs(counter: tuple[int, int, int, int]) -> None:
    draws = Draws((2**63 + 11, 12345678901234567), counter)
    assert draws.uniform(37).tolist() == numbers(draws, 37)


def test_the_raw_words_are_numpys() -> None:
    key, counter = np.array([7, 9], np.uint64), np.array([3, 0, 0, 2**63], np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(8).tolist()
    assert raw == [word for low in (4, 5) for word in philox((low, 0, 0, 2**63), (7, 9))]


def test_taking_moves_a_generator_on() -> None:
    generator = np.random.Generator(np.random.Philox(3))
    first, second, third = (take_draws(generator, count) for count in (9, 8, 1))
    assert first.key == second.key == third.key
    assert (second.blocks_after(first), third.blocks_after(second)) == (2, 1)
    again = np.random.Generator(np.random.Philox(3))
    assert first.uniform(5).tolist() == again.random(5, dtype=np.float32).tolist()


def test_taking_begins_behind_what_was_drawn() -> None:
    """Part of a block may be left over from other draws: a stream begins with a block of its own."""
    generator = np.random.Generator(np.random.Philox(3))
    generator.random(3, dtype=np.float32)
    draws = take_draws(generator, 4)
    assert draws.counter == (1, 0, 0, 0)
    assert not set(draws.uniform(8).tolist()) & set(np.random.Generator(np.random.Philox(3)).random(8).tolist())
    assert take_draws(generator, 1).counter == (2, 0, 0, 0)


def test_a_stream_can_be_drawn_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws((1, 2), (MASK, MASK, 5, 6))
    whole = draws.uniform(100)
    for blocks in (0, 1, 3, 7):
        assert draws.skip(blocks).uniform(20).tolist() == whole[8 * blocks : 8 * blocks + 20].tolist()
    x = np.ones((2, 3, 5, 7), np.float32)
    right = Kernels(np).dropout(x, 0.5, draws)
    monkeypatch.setattr(reference, "PIECE_NUMBERS", 16)
    assert np.array_equal(Kernels(np).dropout(x, 0.5, draws), right)


def test_blocks_are_counted_beyond_one_word() -> None:
    start = Draws((1, 2), (MASK, MASK, 0, 0))
    assert Draws((1, 2), (1, 0, 1, 0)).blocks_after(start) == 2
    assert start.blocks_after(start) == 0


def test_another_generator_gives_a_key() -> None:
    one, other = (take_draws(np.random.default_rng(5), 10) for _ in range(2))
    assert one == other and one.counter == (0, 0, 0, 0)
    assert take_draws(np.random.default_rng(6), 10).key != one.key
    generator = np.random.default_rng(5)
    assert take_draws(generator, 10) != take_draws(generator, 10)


@pytest.mark.usefixtures("device")
def test_a_state_that_was_saved_gives_the_same_masks() -> None:
    x = Tensor(np.ones((2, 3, 4, 5), np.float32))
    manual_seed(11)
    F.dropout(x)
    state = default_generator.bit_generator.state
    following = [host(F.dropout(x)) for _ in range(2)]
    default_generator.bit_generator.state = state
    assert all(np.array_equal(host(F.dropout(x)), mask) for mask in following)
    assert not np.array_equal(*following)


@pytest.mark.usefixtures("device")
def test_the_gradient_has_the_mask() -> None:
    x = Tensor(np.ones((2, 3, 4, 5), np.float32), requires_grad=True)
    y = F.dropout(x, 0.4)
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(host(x.grad), host(y))


@pytest.mark.usefixtures("device")
def test_a_mask_is_dealt_out_in_the_order_of_maps() -> None:
    """Position 0 is pixel (0, 0), channel 0; position 1 the next channel, whatever the memory order."""
    generator = np.random.Generator(np.random.Philox(4))
    drawn = np.array(numbers(take_draws(generator, 0), 2 * 3 * 4 * 5)).reshape(2, 4, 5, 3).transpose(0, 3, 1, 2)
    x = Tensor(np.ones((2, 3, 4, 5), np.float32))
    kept = host(F.dropout(x, 0.25, generator=np.random.Generator(np.random.Philox(4)))) > 0
    np.testing.assert_array_equal(kept, drawn >= 0.25)
