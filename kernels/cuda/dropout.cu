// Dropout with numbers that depend on key, counter and position alone: on the device those that NumPy draws on the host.
//
// Philox 4x64-10 (Salmon et al. 2011), the generator of numpy.random.Philox: a block of 256 bits is the image of a 256-bit
// counter under ten rounds keyed by 128 bits. Block b of a call, of counter + 1 + b, holds the draws of the elements 8 b to
// 8 b + 7 in memory order ((N, H, W, C) for maps): 32 bits each, of which the upper 24 make a number from 0 to 1.
//@ variants: T=float; T=half; T=bf16
#include "streaming.cuh"

constexpr int WIDE = 16 / sizeof(T);

typedef unsigned long long Word;

struct Block {
  Word word[4];
};

DEVICE Block philox(Block counter, Word key0, Word key1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    Word low0 = 0xD2E7470EE14C6C93ull * counter.word[0], high0 = __umul64hi(0xD2E7470EE14C6C93ull, counter.word[0]);
    Word low1 = 0xCA5A826395121157ull * counter.word[2], high1 = __umul64hi(0xCA5A826395121157ull, counter.word[2]);
    counter = Block{{high1 ^ counter.word[1] ^ key0, low1, high0 ^ counter.word[3] ^ key1, low0}};
    key0 += 0x9E3779B97F4A7C15ull;  // the golden ratio and the root of 3, less 1, as fractions of 2^64
    key1 += 0xBB67AE8584CAA73Bull;
  }
  return counter;
}

// y = x * scale where the element's number is at least p, else 0; both in memory without gaps, in one order. A thread serves
// the eight elements of a block; `wide`: x and y begin at multiples of 16 bytes. In a recorded step the generator's state is
// read from device memory, state = {key0, key1, counter 0 .. 3}: counter0 is then what to add to that counter.
//@ budget: registers 40, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) dropout(
    const T* x, T* y, long long size, float p, float scale, const unsigned long long* state, unsigned long long key0,
    unsigned long long key1, unsigned long long counter0, unsigned long long counter1, unsigned long long counter2,
    unsigned long long counter3, int wide) {
  long long block = blockIdx.x * (long long)THREADS + threadIdx.x, first = block * 8;
  if (first >= size) return;
  Word more = (Word)block + 1;
  Block counter{{counter0, counter1, counter2, counter3}};
  if (state) {
    key0 = state[0], key1 = state[1];
    more += counter0;
    counter = Block{{state[2], state[3], state[4], state[5]}};
  }
  counter.word[0] += more;
  if (counter.word[0] < more && ++counter.word[1] == 0 && ++counter.word[2] == 0) counter.word[3]++;
  Block drawn = philox(counter, key0, key1);
  float kept[8];
#pragma unroll
  for (int i = 0; i < 8; i++) {
    unsigned bits = (unsigned)(drawn.word[i / 2] >> 32 * (i % 2));
    kept[i] = (bits >> 8) * 5.9604645e-8f >= p ? scale : 0;  // 2^-24
  }
  if (wide && first + 8 <= size) {
#pragma unroll
    for (int i = 0; i < 8; i += WIDE) {
      float v[WIDE];
      load<WIDE>(x + first + i, v);
#pragma unroll
      for (int k = 0; k < WIDE; k++) v[k] *= kept[i + k];
      store<WIDE>(y + first + i, v);
    }
  } else {
#pragma unroll
    for (int i = 0; i < 8; i++)
      if (first + i < size) y[first + i] = from_float<T>(to_float(x[first + i]) * kept[i]);
  }
}

// Where the numbers of a recorded step begin. One thread: the values travel as arguments, so that nobody waits for a copy.
//@ budget: registers 24, shared 0
extern "C" __global__ void set_state(
    unsigned long long* state, unsigned long long key0, unsigned long long key1, unsigned long long counter0,
    unsigned long long counter1, unsigned long long counter2, unsigned long long counter3) {
  state[0] = key0, state[1] = key1;
  state[2] = counter0, state[3] = counter1, state[4] = counter2, state[5] = counter3;
}
