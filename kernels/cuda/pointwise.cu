// What goes once through maps: gradients of ReLU and bias, sums over the channels, addition, borders.
//
// The maps' layout and the meaning of lane_bits, pixels_per_block, pixels, columns, channels, wide: see streaming.cuh.
//@ variants: T=float; T=half; T=bf16
#include "streaming.cuh"

constexpr int WIDE = 16 / sizeof(T);

// Back through y = relu(x + bias): g = gy where y > 0, else 0, and the sums of g over this block's pixels, parts[piece][c].
// Without y: g = gy, and nothing is written but the sums.
template <int V>
DEVICE void masked_sums(const T* gy, Strides gy_map, const T* y, Strides y_map, T* g, Strides g_map, double* parts,
                        double* room, int lane_bits, int pixels_per_block, int pixels, int columns, int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  double total[V] = {};
  for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
    float v[V], mask[V];
    load<V>(gy + share.at(pixel, gy_map), v);
    if (y) {
      load<V>(y + share.at(pixel, y_map), mask);
#pragma unroll
      for (int i = 0; i < V; i++) v[i] = mask[i] > 0 ? v[i] : 0;
      store<V>(g + share.at(pixel, g_map), v);
    }
#pragma unroll
    for (int i = 0; i < V; i++) total[i] += v[i];
  }
  sum_over_pixels<V>(total, room, lane_bits);
  if (threadIdx.x >> lane_bits == 0 && share.channel < channels) {
    long long piece = (long long)blockIdx.z * gridDim.x + blockIdx.x;
#pragma unroll
    for (int i = 0; i < V; i++) parts[piece * channels + share.channel + i] = total[i];
  }
}

//@ budget: registers 64, shared 16384, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) channel_sums(
    const T* gy, long long gy_image, long long gy_row, int gy_pixel, const T* y, long long y_image, long long y_row,
    int y_pixel, T* g, long long g_image, long long g_row, int g_pixel, double* parts, int lane_bits, int pixels_per_block,
    int pixels, int columns, int channels, int wide) {
  __shared__ double room[WIDE * THREADS];
  Strides gy_map{gy_image, gy_row, gy_pixel}, y_map{y_image, y_row, y_pixel}, g_map{g_image, g_row, g_pixel};
  if (wide)
    masked_sums<WIDE>(gy, gy_map, y, y_map, g, g_map, parts, room, lane_bits, pixels_per_block, pixels, columns, channels);
  else
    masked_sums<1>(gy, gy_map, y, y_map, g, g_map, parts, room, lane_bits, pixels_per_block, pixels, columns, channels);
}

// sums[c] = the sum of parts[0..count-1][c]. One block for 32 channels.
//@ budget: registers 40, shared 2048
extern "C" __global__ void __launch_bounds__(THREADS) finish_sums(const double* parts, int count, int channels, float* sums) {
  __shared__ double room[THREADS];
  int c = blockIdx.x * 32 + (threadIdx.x & 31);
  double total = sum_of_parts(parts, count, channels, c, room);
  if (threadIdx.x < 32 && c < channels) sums[c] = (float)total;
}

template <int V>
DEVICE void add(T* total, Strides total_map, const T* x, Strides x_map, int lane_bits, int pixels_per_block, int pixels,
                int columns, int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
    float v[V], w[V];
    T* sum = total + share.at(pixel, total_map);
    load<V>(sum, v);
    load<V>(x + share.at(pixel, x_map), w);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] += w[i];
    store<V>(sum, v);
  }
}

// total += x.
//@ budget: registers 32, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) add_into(
    T* total, long long total_image, long long total_row, int total_pixel, const T* x, long long x_image, long long x_row,
    int x_pixel, int lane_bits, int pixels_per_block, int pixels, int columns, int channels, int wide) {
  Strides total_map{total_image, total_row, total_pixel}, x_map{x_image, x_row, x_pixel};
  if (wide)
    add<WIDE>(total, total_map, x, x_map, lane_bits, pixels_per_block, pixels, columns, channels);
  else
    add<1>(total, total_map, x, x_map, lane_bits, pixels_per_block, pixels, columns, channels);
}

// Where a border was asked for: columns x pixels / columns pixels of out, that of x beginning at (top, left).
template <int V>
DEVICE void framed(const T* x, Strides x_map, T* out, Strides out_map, int h, int w, int top, int left, float value,
                   int lane_bits, int pixels_per_block, int pixels, int columns, int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
    int row = pixel / columns, column = pixel - row * columns;
    float v[V];
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = value;
    row -= top;
    column -= left;
    if (row >= 0 && row < h && column >= 0 && column < w)
      load<V>(x + blockIdx.z * x_map.image + row * x_map.row + (long long)column * x_map.pixel + share.channel, v);
    store<V>(out + share.at(pixel, out_map), v);
  }
}

// x (h, w) within a border of `value`; negative top or left cut rows or columns off.
//@ budget: registers 40, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) pad(
    const T* x, long long x_image, long long x_row, int x_pixel, T* out, long long out_image, long long out_row,
    int out_pixel, int h, int w, int top, int left, float value, int lane_bits, int pixels_per_block, int pixels, int columns,
    int channels, int wide) {
  Strides x_map{x_image, x_row, x_pixel}, out_map{out_image, out_row, out_pixel};
  if (wide)
    framed<WIDE>(x, x_map, out, out_map, h, w, top, left, value, lane_bits, pixels_per_block, pixels, columns, channels);
  else
    framed<1>(x, x_map, out, out_map, h, w, top, left, value, lane_bits, pixels_per_block, pixels, columns, channels);
}
