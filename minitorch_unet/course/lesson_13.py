"""The CUDA ladder, without a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Exercise, WrongAnswer, expect


def _check_under(answer: Any) -> None:
    for c, p in ((16, 16), (3, 5)):
        numbers = np.arange((p + 2) ** 2 * c).reshape(p + 2, p + 2, c)
        for m in (0, 1, p - 1, p, p * p - 1):
            for z in (0, c, 3 * c, 4 * c + c - 1, 9 * c - 1):
                (row, column), (tap, channel) = divmod(m, p), divmod(z, c)
                r, s = divmod(tap, 3)
                hint = (
                    f"Pixel {m} is ({row}, {column}), tap {tap} is ({r}, {s}): row {row + r}, column {column + s}, "
                    f"channel {channel} of an image with {p + 2} columns of {c} channels."
                )
                wanted = int(numbers[row + r, column + s, channel])
                expect(answer(m, z, c, p), wanted, f"under({m}, {z}, {c}, {p})", hint)


def _check_loads(answer: Any) -> None:
    for m, k, z, rows, columns in ((256, 32, 144, 1, 1), (256, 32, 144, 16, 16), (512, 64, 90, 64, 16)):
        wanted = sum((rows + columns) * z for _ in range(0, m, rows) for _ in range(0, k, columns))
        blocks = m // rows * (k // columns)
        hint = f"There are {blocks:,} blocks; for each z one loads {rows} values of A and {columns} of B."
        expect(answer(m, k, z, rows, columns), wanted, f"global_loads({m}, {k}, {z}, {rows}, {columns})", hint)


def _check_passes(answer: Any) -> None:
    lanes = np.arange(32)
    for name, words, hint in (
        ("neighbours", lanes, "Every word lies in a bank of its own."),
        ("all the same word", 0 * lanes + 7, "One word of a bank serves all lanes that want it."),
        ("a column of a 16 x 16 array, twice", lanes % 16 * 16, "Multiples of 16 lie in the banks 0 and 16 only."),
        ("a column of a 16 x 17 array", lanes % 16 * 17 + 5, "17 and 32 have no common divisor."),
        ("a column of a 32 x 32 array", lanes * 32, "Multiples of 32 are all in bank 0."),
        ("two rows of a 16 x 17 array", lanes // 16 * 17 + lanes % 16, "Words 0 and 32 share a bank."),
        ("anything", np.random.default_rng(3).integers(0, 200, 32), "The fullest bank decides."),
    ):
        words = words.tolist()
        wanted = max(len({word for word in words if word % 32 == bank}) for bank in range(32))
        expect(answer(list(words)), wanted, f"passes for {name}", f"The words are {words}. {hint}")


def _check_barriers(answer: Any) -> None:
    if not isinstance(answer, str):
        raise WrongAnswer(f"barriers is a {type(answer).__name__}; it must be text such as 'AC'")
    chosen = set(answer.upper()) & set("ABC")
    for place, text in (
        ("A", "a thread reads what its neighbour writes, and nothing says that the neighbour was there first"),
        ("B", "the fastest thread writes s for the next i while others still read it for this one"),
    ):
        if place not in chosen:
            raise WrongAnswer(f"One is needed at {place}: {text}.")
    if chosen != set("AB"):
        raise WrongAnswer(f"None is needed at {', '.join(sorted(chosen - set('AB')))}: what follows is a thread's own.")


EXERCISES = [
    Exercise(
        name="under",
        question="""under(m, z, c, p): the lesson's function for any sizes. The image lies in memory as (p + 2, p +
2, c), the result has p x p pixels. Row m of A is pixel m of the result, counted row by row; z is tap z // c
(counted row by row, 3 x 3) and channel z % c. Which element of the image is A[m][z]?""",
        start="""
def under(m, z, c, p):
    ...
""",
        solution="""
def under(m, z, c, p):
    tap, channel = divmod(z, c)
    row, column = m // p + tap // 3, m % p + tap % 3
    return (row * (p + 2) + column) * c + channel
""",
        wrong=[
            """
def under(m, z, c, p):  # rows of the image are longer than those of the result
    tap, channel = divmod(z, c)
    return ((m // p + tap // 3) * p + m % p + tap % 3) * c + channel
""",
            """
def under(m, z, c, p):  # as if the channels were planes
    tap, channel = divmod(z, c)
    return (channel * (p + 2) + m // p + tap // 3) * (p + 2) + m % p + tap % 3
""",
            """
def under(m, z, c, p):  # the taps run down the columns
    tap, channel = divmod(z, c)
    return ((m // p + tap % 3) * (p + 2) + m % p + tap // 3) * c + channel
""",
        ],
        check=_check_under,
    ),
    Exercise(
        name="global_loads",
        question="""global_loads(m, k, z, rows, columns): a product of A (m, z) and B (z, k) is made by blocks of
rows x columns results, which divide m and k. Each block loads every value of A and B that it needs from global
memory once. How many values are loaded in all? (1 x 1 is the naive kernel; compare with the lesson's counts.)""",
        start="""
def global_loads(m, k, z, rows, columns):
    ...
""",
        solution="""
def global_loads(m, k, z, rows, columns):
    blocks = (m // rows) * (k // columns)
    return blocks * (rows + columns) * z
""",
        wrong=[
            "def global_loads(m, k, z, rows, columns):\n    return m * k * z // (rows * columns)\n",
            "def global_loads(m, k, z, rows, columns):\n    return m * z + z * k\n",
            "def global_loads(m, k, z, rows, columns):\n    return 2 * m * k * z // rows\n",
        ],
        check=_check_loads,
    ),
    Exercise(
        name="passes",
        question="""passes(words): the 32 lanes of a warp want these words of shared memory (a list of numbers).
Word w lies in bank w % 32. In one pass each bank gives one word, to all lanes that want it. How many passes are
needed?""",
        start="""
def passes(words):
    ...
""",
        solution="""
def passes(words):
    return max(sum(word % 32 == bank for word in set(words)) for bank in range(32))
""",
        wrong=[
            "def passes(words):\n    return max(sum(word % 32 == bank for word in words) for bank in range(32))\n",
            "def passes(words):\n    return len(set(words))\n",
            "def passes(words):\n    return len({word % 32 for word in words})\n",
        ],
        check=_check_passes,
    ),
    Exercise(
        name="barriers",
        question="""barriers: at which of the places A, B and C does this kernel need a __syncthreads()? As text,
such as 'AC'. It runs in one block of 256 threads, and t is threadIdx.x.

    __shared__ float s[256];
    float sum = 0;
    for (int i = 0; i < n; i++) {
      s[t] = x[i * 256 + t];
      // A
      sum += s[(t + 1) % 256];
      // B
    }
    // C
    y[t] = sum;""",
        start="barriers = ...\n",
        solution="barriers = 'AB'\n",
        wrong=["barriers = 'A'\n", "barriers = 'ABC'\n", "barriers = 'B'\n", "barriers = 2\n"],
        check=_check_barriers,
    ),
]
