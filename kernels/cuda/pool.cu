// Max pooling: the largest value of each window and its tap, the gradient sent back to it, and values read at it.
//
// Symbols: H W input rows columns, P Q output rows columns, R S window rows columns. Maps lie channels-last (streaming.cuh);
// y, the winners and gx are dense. A winner is the number of a window's tap in row-major order: the first of equal values,
// but NaN beats every number, and the last NaN the others. A thread serves V neighbouring channels of one output pixel, V
// values filling 16 bytes where the maps allow it ("wide"). Grid: (an image's pixels times groups of V channels, images).
//@ variants: T=float; T=half; T=bf16
#include "streaming.cuh"

constexpr int WIDE = 16 / sizeof(T);


// The pixel and the first channel of this thread; false for one that has no work.
template <int V> DEVICE bool place(int rows, int columns, int channels, int& row, int& column, int& channel) {
  unsigned groups = channels / V, index = blockIdx.x * THREADS + threadIdx.x;
  unsigned pixel = index / groups;
  channel = (index - pixel * groups) * V;
  row = pixel / columns;
  column = pixel - row * columns;
  return row < rows;
}

// Where element (row, column, channel) of this image lies in a dense map.
DEVICE long long dense(int rows, int columns, int channels, int row, int column, int channel) {
  return (((long long)blockIdx.y * rows + row) * columns + column) * channels + channel;
}

template <int V> DEVICE void first_tap(const float (&v)[V], float (&best)[V], unsigned char (&winner)[V]) {
#pragma unroll
  for (int i = 0; i < V; i++) {
    best[i] = v[i];
    winner[i] = 0;
  }
}

template <int V> DEVICE void next_tap(const float (&v)[V], int tap, float (&best)[V], unsigned char (&winner)[V]) {
#pragma unroll
  for (int i = 0; i < V; i++) {
    bool better = v[i] > best[i] || v[i] != v[i];
    best[i] = better ? v[i] : best[i];
    winner[i] = better ? tap : winner[i];
  }
}

template <int V> DEVICE void store_bytes(unsigned char* to, const unsigned char (&v)[V]) {
  Pack<unsigned char, V> pack;
#pragma unroll
  for (int i = 0; i < V; i++) pack.value[i] = v[i];
  *reinterpret_cast<Pack<unsigned char, V>*>(to) = pack;
}

template <int V> DEVICE void halved(const T* x, Strides map, T* y, unsigned char* winners, int p, int q, int channels) {
  int row, column, channel;
  if (!place<V>(p, q, channels, row, column, channel)) return;
  const T* corner = x + blockIdx.y * map.image + 2 * row * map.row + 2ll * column * map.pixel + channel;
  float taps[4][V], best[V];
  unsigned char winner[V];
#pragma unroll
  for (int tap = 0; tap < 4; tap++) load<V>(corner + (tap >> 1) * map.row + (tap & 1) * map.pixel, taps[tap]);
  first_tap<V>(taps[0], best, winner);
#pragma unroll
  for (int tap = 1; tap < 4; tap++) next_tap<V>(taps[tap], tap, best, winner);
  long long at = dense(p, q, channels, row, column, channel);
  store<V>(y + at, best);
  store_bytes<V>(winners + at, winner);
}

// Windows of 2x2 that touch, all inside x: the U-Net's.
//@ budget: registers 40, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) halve(
    const T* x, long long x_image, long long x_row, int x_pixel, T* y, unsigned char* winners, int p, int q, int channels,
    int wide) {
  Strides map{x_image, x_row, x_pixel};
  if (wide)
    halved<WIDE>(x, map, y, winners, p, q, channels);
  else
    halved<1>(x, map, y, winners, p, q, channels);
}

template <int V> DEVICE void halved_back(const T* gy, Strides map, const unsigned char* winners, T* gx, int p, int q,
                                         int channels) {
  int row, column, channel;
  if (!place<V>(p, q, channels, row, column, channel)) return;
  float g[V];
  load<V>(gy + blockIdx.y * map.image + row * map.row + (long long)column * map.pixel + channel, g);
  Pack<unsigned char, V> winner =
      *reinterpret_cast<const Pack<unsigned char, V>*>(winners + dense(p, q, channels, row, column, channel));
#pragma unroll
  for (int tap = 0; tap < 4; tap++) {
    float v[V];
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = winner.value[i] == tap ? g[i] : 0;
    store<V>(gx + dense(2 * p, 2 * q, channels, 2 * row + (tap >> 1), 2 * column + (tap & 1), channel), v);
  }
}

// The gradient of `halve`, all of whose input is covered by windows.
//@ budget: registers 48, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) halve_backward(
    const T* gy, long long gy_image, long long gy_row, int gy_pixel, const unsigned char* winners, T* gx, int p, int q,
    int channels, int wide) {
  Strides map{gy_image, gy_row, gy_pixel};
  if (wide)
    halved_back<WIDE>(gy, map, winners, gx, p, q, channels);
  else
    halved_back<1>(gy, map, winners, gx, p, q, channels);
}

// Windows of any kind, of up to 256 taps; beyond x every value is -infinity.
//@ budget: registers 40, shared 0
extern "C" __global__ void __launch_bounds__(THREADS) max_pool2d(
    const T* x, long long x_image, long long x_row, int x_pixel, T* y, unsigned char* winners, int h, int w, int p, int q,
    int r, int s, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int channels) {
  int row, column, channel;
  if (!place<1>(p, q, channels, row, column, channel)) return;
  const T* plane = x + blockIdx.y * x_image + channel;
  float best[1];
  unsigned char winner[1];
  for (int tap = 0; tap < r * s; tap++) {
    int i = row * stride_h - pad_h + tap / s * dilation_h, j = column * stride_w - pad_w + tap % s * dilation_w;
    bool inside = i >= 0 && i < h && j >= 0 && j < w;
    float v[1] = {inside ? to_float(plane[i * x_row + (long long)j * x_pixel]) : __int_as_float(0xff800000)};
    if (tap == 0)
      first_tap<1>(v, best, winner);
    else
      next_tap<1>(v, tap, best, winner);
  }
  long long at = dense(p, q, channels, row, column, channel);
  y[at] = from_float<T>(best[0]);
  winners[at] = winner[0];
}

// The gradient of `max_pool2d`: each input pixel adds up, in the order of the taps, what the windows send that it has won. So
// windows may overlap, and no two threads ever write to one place.
//@ budget: registers 40, shared 0
extern "C" __global__ void __launch_bounds__(THREADS) max_pool2d_scatter(
    const T* gy, long long gy_image, long long gy_row, int gy_pixel, const unsigned char* winners, T* gx, int h, int w, int p,
    int q, int r, int s, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int channels) {
  int row, column, channel;
  if (!place<1>(h, w, channels, row, column, channel)) return;
  float total = 0;
  for (int tap = 0; tap < r * s; tap++) {
    // The pixel is this tap of window (i, j) if i * stride + tap row * dilation - pad is its row, and the same for columns.
    int i = row + pad_h - tap / s * dilation_h, j = column + pad_w - tap % s * dilation_w;
    if (i < 0 || j < 0 || i % stride_h != 0 || j % stride_w != 0) continue;
    i /= stride_h;
    j /= stride_w;
    if (i >= p || j >= q || winners[dense(p, q, channels, i, j, channel)] != tap) continue;
    total += to_float(gy[blockIdx.y * gy_image + i * gy_row + (long long)j * gy_pixel + channel]);
  }
  gx[dense(h, w, channels, row, column, channel)] = from_float<T>(total);
}

// The value of x at each window's winner, 0 where that lies beyond x: the transpose of max_pool2d_scatter.
//@ budget: registers 24, shared 0
extern "C" __global__ void __launch_bounds__(THREADS) max_pool2d_gather(
    const T* x, long long x_image, long long x_row, int x_pixel, const unsigned char* winners, T* y, int h, int w, int p, int q,
    int s, int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, int channels) {
  int row, column, channel;
  if (!place<1>(p, q, channels, row, column, channel)) return;
  long long at = dense(p, q, channels, row, column, channel);
  int tap = winners[at];
  int i = row * stride_h - pad_h + tap / s * dilation_h, j = column * stride_w - pad_w + tap % s * dilation_w;
  bool inside = i >= 0 && i < h && j >= 0 && j < w;
  y[at] = inside ? x[blockIdx.y * x_image + i * x_row + (long long)j * x_pixel + channel] : from_float<T>(0);
}
