// A map copied: into another type, into a part of a larger map, or with negative values set to 0.
//
// The maps' layout and the meaning of lane_bits, pixels_per_block, pixels, columns, channels, wide: see streaming.cuh.
//@ variants: FROM=float TO=float; FROM=float TO=half; FROM=float TO=bf16; FROM=half TO=float; FROM=half TO=half; FROM=bf16 TO=float; FROM=bf16 TO=bf16
#include "streaming.cuh"

constexpr int WIDE = 16 / (sizeof(FROM) > sizeof(TO) ? sizeof(FROM) : sizeof(TO));

template <int V>
DEVICE void converted(const FROM* x, Strides x_map, TO* y, Strides y_map, int relu, int lane_bits, int pixels_per_block,
                      int pixels, int columns, int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
    float v[V];
    load<V>(x + share.at(pixel, x_map), v);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = relu && v[i] < 0 ? 0 : v[i];  // NaN stays
    store<V>(y + share.at(pixel, y_map), v);
  }
}

// y = x, or max(x, 0) with relu.
//@ budget: registers 32, shared 0
extern "C" __global__ void __launch_bounds__(THREADS) convert(
    const FROM* x, long long x_image, long long x_row, int x_pixel, TO* y, long long y_image, long long y_row, int y_pixel,
    int relu, int lane_bits, int pixels_per_block, int pixels, int columns, int channels, int wide) {
  Strides x_map{x_image, x_row, x_pixel}, y_map{y_image, y_row, y_pixel};
  if (wide)
    converted<WIDE>(x, x_map, y, y_map, relu, lane_bits, pixels_per_block, pixels, columns, channels);
  else
    converted<1>(x, x_map, y, y_map, relu, lane_bits, pixels_per_block, pixels, columns, channels);
}
