"""Random numbers that depend on key, counter and position alone: the same ones on every device, in any order, again.

The generator is Philox 4x64-10 (Salmon et al. 2011), as NumPy has it: a block of 256 random bits is the image of a
256-bit counter under rounds keyed by 128 bits. Number i of a stream is in block counter + 1 + i // 8, 32 bits of it, of
which the upper 24 make a float32 from 0 to 1: what `numpy.random.Generator.random(dtype=float32)` draws.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

NUMBERS_PER_BLOCK = 8
_WORD = 2**64


class Draws(NamedTuple):
    """Where a stream of numbers begins: a key of two 64-bit words, and a counter of four, the lowest first."""

    key: tuple[int, int]
    counter: tuple[int, int, int, int]

    def uniform(self, count: int) -> np.ndarray:
        """The first `count` numbers, float32 in 0 <= number < 1, drawn on the host."""
        generator = np.random.Philox(key=np.array(self.key, np.uint64), counter=np.array(self.counter, np.uint64))
        return np.random.Generator(generator).random(count, dtype=np.float32)

    def skip(self, blocks: int) -> Draws:
        """The stream that begins so many blocks later."""
        counter = (self._counter() + blocks) % _WORD**4
        words = [counter >> 64 * i & (_WORD - 1) for i in range(4)]
        return Draws(self.key, (words[0], words[1], words[2], words[3]))

    def blocks_after(self, start: Draws) -> int:
        """How many blocks lie between the beginning of another stream with this key and that of this one."""
        return (self._counter() - start._counter()) % _WORD**4

    def _counter(self) -> int:
        return sum(word << 64 * i for i, word in enumerate(self.counter))


def take_draws(generator: np.random.Generator, count: int) -> Draws:
    """Take `count` numbers off a generator: the stream that holds them. The generator goes on behind them.

    A generator over Philox lends its own key and counter, and is moved on by whole blocks. Of any other two words are
    drawn, to be the key of a stream.
    """
    bits = generator.bit_generator
    if not isinstance(bits, np.random.Philox):
        low, high = generator.integers(0, _WORD, 2, dtype=np.uint64, endpoint=False).tolist()
        return Draws((low, high), (0, 0, 0, 0))
    state = bits.state["state"]
    draws = Draws(tuple(state["key"].tolist()), tuple(state["counter"].tolist()))
    bits.advance(-(-count // NUMBERS_PER_BLOCK))  # also forgets what is left of the last block
    return draws
