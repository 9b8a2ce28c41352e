// Rung 4's machinery: tiles in shared memory, filled by asynchronous copies and read as fragments of tensor-core products.
//
// A stage of the pipeline holds one piece of z of both operands, 128 bytes of z for each row or column of the product: 32
// values of float32, 64 of 16 bits. In both cases an instruction takes 32 bytes of z (m16n8k8 of TF32, m16n8k16 of 16 bits),
// a quarter of the stage, and copies move 16 bytes, a "chunk". So the two types differ in few places.
#pragma once
#include "conv_operands.cuh"

constexpr int CHUNK = 16, DEPTH = 128 / sizeof(T), VEC = CHUNK / sizeof(T), QUARTERS = 4;
// Four warps of large pieces read least from shared memory. With EXACT the tensor cores have three times as much to do, and
// the factors' rests need registers: eight warps of smaller pieces.
constexpr int WARPS = EXACT ? 8 : 4, THREADS = 32 * WARPS;
constexpr int WARPS_M = EXACT && BN == 64 ? 4 : 2, WARPS_N = WARPS / WARPS_M;
constexpr int WARP_M = BM / WARPS_M, WARP_N = BN / WARPS_N;  // a warp's part of the block's tile
constexpr int MI = WARP_M / 16, NI = WARP_N / 8;             // and how many products it takes
constexpr int STAGE_BYTES = (BM + BN) * 128, LINE = BN + 8;  // LINE: of the sums in shared memory at the end, see write()
static_assert(STAGES * STAGE_BYTES >= BM * LINE * (int)sizeof(float), "the sums do not fit into the stages' memory");

template <int EXTENT> using ByRows = Tile<true, VEC, DEPTH, EXTENT, THREADS>;
template <int EXTENT> using ByColumns = Tile<false, VEC, DEPTH, EXTENT, THREADS>;

// Where in a tile a chunk of a line lies, in bytes. Lines follow one another; within a line the chunks are exchanged in a
// way that depends on the line, because shared memory has 32 banks of 4 bytes, and what one instruction reads should touch
// each of them once:
//   ldmatrix reads 8 lines' chunks of the same number, from lines of 128 or 256 bytes: without the exchange, all from the
//   same four banks. With number ^ line % 8 they are eight different chunks of 128 bytes.
//   Float32 by columns is read word by word (ldmatrix transposes 16-bit values only): 4 lines of z, 8 neighbouring columns.
//   With the chunk's number ^ 2 * (line % 4) the lines' pairs of chunks lie beside one another.
template <class Operand> __device__ int chunk_at(int line, int chunk) {
  const int exchange = Operand::BY_ROWS || sizeof(T) == 2 ? line % 8 : line % 4 * 2;
  return line * (Operand::WIDTH * (int)sizeof(T)) + (chunk ^ exchange) * CHUNK;
}

// Start the copies of an operand's piece of z into a tile; zeros where it has no values.
template <class Operand> __device__ void fill(Operand& operand, int step, unsigned char* tile) {
  constexpr int PERIOD = Operand::BY_ROWS || sizeof(T) == 2 ? 8 : 4;  // of the exchange: the same in all of a thread's lines
  static_assert(Operand::STRIDE % PERIOD == 0, "a thread's chunks are not exchanged alike");
  unsigned char* to = tile + chunk_at<Operand>(operand.line, operand.lane);
  operand.move_to(step);
#pragma unroll
  for (int i = 0; i < Operand::COUNT; i++) {
    const T* from;
    const bool exists = operand.find(i, from);  // where it does not, nothing is read: the address need not be legal
    cp_async16(to + i * Operand::STRIDE * Operand::WIDTH * (int)sizeof(T), from, exists);
  }
}

// The words of a tile by columns of float32: z and column.
template <class Operand> __device__ unsigned word(const unsigned char* tile, int z, int column) {
  return *(const unsigned*)(tile + chunk_at<Operand>(z, column / VEC) + column % VEC * (int)sizeof(T));
}

// Fragment of A: 16 rows of the product from m on, a quarter of the stage's z. With lane = 4 g + t, word i holds z = t (32
// bits) or 2 t, 2 t + 1 (16 bits) of row g, for i = 0 to 3: of the first 8 rows, the last 8, both again from the middle of z.
// One ldmatrix reads all four: lane l names the chunk of line l % 8 of the l / 8-th block of 8 rows by 16 bytes.
template <class A> __device__ void read_a(const unsigned char* tile, int m, int quarter, unsigned (&a)[4]) {
  const int lane = threadIdx.x % 32;
  if constexpr (A::BY_ROWS) {
    ldmatrix_x4<false>(a, tile + chunk_at<A>(m + lane % 16, quarter * 2 + lane / 16));
  } else if constexpr (sizeof(T) == 2) {
    ldmatrix_x4<true>(a, tile + chunk_at<A>(quarter * 16 + lane / 16 * 8 + lane % 8, m / 8 + lane / 8 % 2));
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) a[i] = word<A>(tile, quarter * 8 + lane % 4 + i / 2 * 4, m + lane / 4 + i % 2 * 8);
  }
}

// Two fragments of B: 8 columns of the product from j on and the next 8, a quarter of the stage's z. Word 0 and 1 belong to
// the first: column g, z as above, of the first and the second half of z.
template <class B> __device__ void read_b(const unsigned char* tile, int j, int quarter, unsigned (&b)[4]) {
  const int lane = threadIdx.x % 32;
  if constexpr (B::BY_ROWS) {
    ldmatrix_x4<false>(b, tile + chunk_at<B>(j + lane / 16 * 8 + lane % 8, quarter * 2 + lane / 8 % 2));
  } else if constexpr (sizeof(T) == 2) {
    ldmatrix_x4<true>(b, tile + chunk_at<B>(quarter * 16 + lane % 16, j / 8 + lane / 16));
  } else {
#pragma unroll
    for (int i = 0; i < 4; i++) b[i] = word<B>(tile, quarter * 8 + lane % 4 + i % 2 * 4, j + lane / 4 + i / 2 * 8);
  }
}

// One 16 x 8 product of a quarter of z, for each type of maps.
__device__ inline void product(float, float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_m16n8k8_tf32(sum, a, b);
}
__device__ inline void product(bf16, float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_m16n8k16_bf16(sum, a, b);
}
__device__ inline void product(half, float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_m16n8k16_f16(sum, a, b);
}

// Float32 bits rounded to TF32 (11 significant bits of 24), and what that leaves out, rounded too: 22 bits in all.
template <int N> __device__ void split(unsigned (&value)[N], unsigned (&rest)[N]) {
#pragma unroll
  for (int i = 0; i < N; i++) {
    const float exact = __uint_as_float(value[i]);
    value[i] = to_tf32(exact);
    rest[i] = to_tf32(exact - __uint_as_float(value[i]));
  }
}

// The warp's products of one stage. B's fragments are kept for a quarter of z, A's for 16 rows.
template <class A, class B>
__device__ void multiply_stage(const unsigned char* left, const unsigned char* right, float (&sums)[MI][NI][4]) {
  const int warp = threadIdx.x / 32, m0 = warp / WARPS_N * WARP_M, j0 = warp % WARPS_N * WARP_N;
  // Unrolled, the next quarter's fragments are read while this one's products run. With EXACT there are no registers for
  // that (and no need: the other warps' products fill the time).
  constexpr int AT_ONCE = EXACT ? 1 : QUARTERS;
#pragma unroll AT_ONCE
  for (int quarter = 0; quarter < QUARTERS; quarter++) {
    unsigned b[NI / 2][4], rest_b[NI / 2][4];
#pragma unroll
    for (int j = 0; j < NI / 2; j++) {
      read_b<B>(right, j0 + j * 16, quarter, b[j]);
      if constexpr (sizeof(T) == 4) split(b[j], rest_b[j]);
    }
#pragma unroll
    for (int i = 0; i < MI; i++) {
      unsigned a[4], rest_a[4];
      read_a<A>(left, m0 + i * 16, quarter, a);
      if constexpr (sizeof(T) == 4) split(a, rest_a);
#if EXACT  // the small products first; rest times rest is less than float32 can hold beside them
#pragma unroll
      for (int j = 0; j < NI; j++) product(T{}, sums[i][j], rest_a, {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
#pragma unroll
      for (int j = 0; j < NI; j++) product(T{}, sums[i][j], a, {rest_b[j / 2][j % 2 * 2], rest_b[j / 2][j % 2 * 2 + 1]});
#endif
#pragma unroll
      for (int j = 0; j < NI; j++) product(T{}, sums[i][j], a, {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]});
    }
  }
}

// The block's share of z, added up. STAGES - 1 pieces are on their way while one is multiplied.
template <class A, class B>
__device__ void multiply(A& a, B& b, int steps, unsigned char* stages, float (&sums)[MI][NI][4]) {
  const int first = (int)((long long)steps * blockIdx.z / gridDim.z);
  const int last = (int)((long long)steps * (blockIdx.z + 1) / gridDim.z);
  auto start = [&](int step) {  // an empty group where there is nothing left, so that waiting by number holds to the end
    unsigned char* stage = stages + (step - first) % STAGES * STAGE_BYTES;
    if (step < last) {
      fill(a, step, stage);
      fill(b, step, stage + BM * 128);
    }
    cp_async_commit();
  };
#pragma unroll 1
  for (int step = first; step < first + STAGES - 1; step++) start(step);
#pragma unroll 1
  for (int step = first; step < last; step++) {
    cp_async_wait<STAGES - 2>();  // this thread's copies of `step` have arrived,
    __syncthreads();              // and everybody's; and nobody reads the stage of step - 1 any more, which is filled now
    start(step + STAGES - 1);
    const unsigned char* stage = stages + (step - first) % STAGES * STAGE_BYTES;
    multiply_stage<A, B>(stage, stage + BM * 128, sums);
  }
  cp_async_wait<0>();
  __syncthreads();  // the stages' memory is free
}

// The tile's way out. A thread has pairs of neighbouring columns from many rows; by way of shared memory it gets N
// neighbours, so that maps are written (and masks read) 16 bytes at a time. LINE = BN + 8: a warp's rows lie in other banks.
template <int N, class Value>
__device__ void write(const Output<Value>& output, int m0, int j0, const float (&sums)[MI][NI][4], unsigned char* stages) {
  float* tile = (float*)stages;
  // Of 8 columns a thread reads four at a time. Neighbouring threads' fours should be neighbours: the second ones lie apart.
  auto place = [](int column) { return N == 8 ? column / 8 * 4 + column % 4 + column / 4 % 2 * (BN / 2 + 4) : column; };
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const int warp_m = warp / WARPS_N * WARP_M + g, warp_j = warp % WARPS_N * WARP_N + t * 2;
#pragma unroll
  for (int i = 0; i < MI; i++)
#pragma unroll
    for (int j = 0; j < NI; j++)
#pragma unroll
      for (int h = 0; h < 2; h++) {  // words 0, 1 of the result: row g, columns 2 t and 2 t + 1; words 2, 3: row g + 8
        const Vector<float, 2> pair{sums[i][j][h * 2], sums[i][j][h * 2 + 1]};
        *(Vector<float, 2>*)(tile + (warp_m + i * 16 + h * 8) * LINE + place(warp_j + j * 8)) = pair;
      }
  __syncthreads();
  for (int i = threadIdx.x; i < BM * BN / N; i += THREADS) {
    const int m = i / (BN / N), j = i % (BN / N) * N;
    float row[N];
#pragma unroll
    for (int e = 0; e < N; e += 4) *(Vector<float, 4>*)(row + e) = *(const Vector<float, 4>*)(tile + m * LINE + place(j + e));
    output.store(m0 + m, j0 + j, row);
  }
}
