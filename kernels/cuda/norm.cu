// Batch normalisation: mean and variance of the channels, y = (x - centre) scale + shift, and the way back.
//
// Sums are kept in double precision, which costs less than reading the values does, and added up in a fixed order.
// The maps' layout and the meaning of lane_bits, pixels_per_block, pixels, columns, channels, wide: see streaming.cuh.
//@ variants: T=float; T=half; T=bf16
#include "streaming.cuh"

constexpr int WIDE = 16 / sizeof(T);
constexpr int SUMMED = 4;  // channels of a thread that keeps sums: with 8 their doubles would not fit the registers

// Two sums of this block's pixels for each channel, to parts[piece][0 or 1][c].
template <int V>
DEVICE void write_two_sums(double (&first)[V], double (&second)[V], double* parts, double* room, int lane_bits,
                           const Share& share, int channels) {
  sum_over_pixels<V>(first, room, lane_bits);
  sum_over_pixels<V>(second, room, lane_bits);
  if (threadIdx.x >> lane_bits == 0 && share.channel < channels) {
    double* mine = parts + ((long long)blockIdx.z * gridDim.x + blockIdx.x) * 2 * channels + share.channel;
#pragma unroll
    for (int i = 0; i < V; i++) {
      mine[i] = first[i];
      mine[channels + i] = second[i];
    }
  }
}

// Sums of d and d^2, d = x less the channel's first value: a mean that is large beside the spread costs no digits then.
template <int V>
DEVICE void shifted_sums(const T* x, Strides x_map, double* parts, double* room, int lane_bits, int pixels_per_block,
                         int pixels, int columns, int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  double sum[V] = {}, squares[V] = {};
  if (share.channel < channels) {
    float origin[V];
    load<V>(x + share.channel, origin);
    for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
      float v[V];
      load<V>(x + share.at(pixel, x_map), v);
#pragma unroll
      for (int i = 0; i < V; i++) {
        double difference = (double)v[i] - origin[i];
        sum[i] += difference;
        squares[i] += difference * difference;
      }
    }
  }
  write_two_sums<V>(sum, squares, parts, room, lane_bits, share, channels);
}

//@ budget: registers 56, shared 8192
extern "C" __global__ void __launch_bounds__(THREADS) channel_moments(
    const T* x, long long x_image, long long x_row, int x_pixel, double* parts, int lane_bits, int pixels_per_block, int pixels,
    int columns, int channels, int wide) {
  __shared__ double room[SUMMED * THREADS];
  Strides x_map{x_image, x_row, x_pixel};
  if (wide)
    shifted_sums<SUMMED>(x, x_map, parts, room, lane_bits, pixels_per_block, pixels, columns, channels);
  else
    shifted_sums<1>(x, x_map, parts, room, lane_bits, pixels_per_block, pixels, columns, channels);
}

// Mean and variance from the sums of `count` pieces over `values` values a channel. One block for 32 channels.
//@ budget: registers 40, shared 2048
extern "C" __global__ void __launch_bounds__(THREADS) finish_moments(
    const T* x, const double* parts, int count, int channels, long long values, double* mean, double* variance) {
  __shared__ double room[THREADS];
  int c = blockIdx.x * 32 + (threadIdx.x & 31);
  double sum = sum_of_parts(parts, count, 2 * channels, c < channels ? c : 2 * channels, room);
  double squares = sum_of_parts(parts, count, 2 * channels, channels + c, room);
  if (threadIdx.x < 32 && c < channels) {
    double beside = sum / values;
    mean[c] = to_float(x[c]) + beside;
    variance[c] = squares / values - beside * beside;
  }
}

template <int V>
DEVICE void scaled(const T* x, Strides x_map, T* y, Strides y_map, const float* centre, const float* scale,
                   const float* shift, int relu, int lane_bits, int pixels_per_block, int pixels, int columns, int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  if (share.channel >= channels) return;
  float c[V], a[V], b[V];
#pragma unroll
  for (int i = 0; i < V; i++) {
    c[i] = centre[share.channel + i];
    a[i] = scale[share.channel + i];
    b[i] = shift[share.channel + i];
  }
  for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
    float v[V];
    load<V>(x + share.at(pixel, x_map), v);
#pragma unroll
    for (int i = 0; i < V; i++) {
      v[i] = (v[i] - c[i]) * a[i] + b[i];
      v[i] = relu && v[i] < 0 ? 0 : v[i];  // NaN stays
    }
    store<V>(y + share.at(pixel, y_map), v);
  }
}

//@ budget: registers 56, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) scale_shift(
    const T* x, long long x_image, long long x_row, int x_pixel, T* y, long long y_image, long long y_row, int y_pixel,
    const float* centre, const float* scale, const float* shift, int relu, int lane_bits, int pixels_per_block, int pixels,
    int columns, int channels, int wide) {
  Strides x_map{x_image, x_row, x_pixel}, y_map{y_image, y_row, y_pixel};
  if (wide)
    scaled<WIDE>(x, x_map, y, y_map, centre, scale, shift, relu, lane_bits, pixels_per_block, pixels, columns, channels);
  else
    scaled<1>(x, x_map, y, y_map, centre, scale, shift, relu, lane_bits, pixels_per_block, pixels, columns, channels);
}

// The gradient of V channels of a pixel, through the ReLU behind the normalisation if its result y is given.
template <int V>
DEVICE void gradient(const T* gy, const Strides& gy_map, const T* y, const Strides& y_map, const Share& share, unsigned pixel,
                     float (&g)[V]) {
  load<V>(gy + share.at(pixel, gy_map), g);
  if (y) {
    float mask[V];
    load<V>(y + share.at(pixel, y_map), mask);
#pragma unroll
    for (int i = 0; i < V; i++) g[i] = mask[i] > 0 ? g[i] : 0;
  }
}

template <int V>
DEVICE void gradient_sums(const T* gy, Strides gy_map, const T* y, Strides y_map, const T* x, Strides x_map,
                          const double* mean, double* parts, double* room, int lane_bits, int pixels_per_block, int pixels,
                          int columns, int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  double total[V] = {}, products[V] = {};
  if (share.channel < channels) {
    double centre[V];
#pragma unroll
    for (int i = 0; i < V; i++) centre[i] = mean[share.channel + i];
    for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
      float g[V], v[V];
      gradient<V>(gy, gy_map, y, y_map, share, pixel, g);
      load<V>(x + share.at(pixel, x_map), v);
#pragma unroll
      for (int i = 0; i < V; i++) {
        total[i] += g[i];
        products[i] += g[i] * (v[i] - centre[i]);
      }
    }
  }
  write_two_sums<V>(total, products, parts, room, lane_bits, share, channels);
}

// Sums of g and of g (x - mean) over this block's pixels, to parts[piece][0 or 1][c].
//@ budget: registers 64, shared 8192
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_sums(
    const T* gy, long long gy_image, long long gy_row, int gy_pixel, const T* y, long long y_image, long long y_row,
    int y_pixel, const T* x, long long x_image, long long x_row, int x_pixel, const double* mean, double* parts, int lane_bits,
    int pixels_per_block, int pixels, int columns, int channels, int wide) {
  __shared__ double room[SUMMED * THREADS];
  Strides gy_map{gy_image, gy_row, gy_pixel}, y_map{y_image, y_row, y_pixel}, x_map{x_image, x_row, x_pixel};
  if (wide)
    gradient_sums<SUMMED>(gy, gy_map, y, y_map, x, x_map, mean, parts, room, lane_bits, pixels_per_block, pixels, columns,
                        channels);
  else
    gradient_sums<1>(gy, gy_map, y, y_map, x, x_map, mean, parts, room, lane_bits, pixels_per_block, pixels, columns, channels);
}

// Gradients of scale and shift from those sums, and what the input's gradient needs of each channel: with z = (x - mean)
// inverse it is scale inverse (g - (sum g + z sum g z) / values) = factor g - (x - centre) slope - constant. centre is the
// mean in float32, and constant holds what rounding it has cost. One block for 32 channels.
//@ budget: registers 48, shared 2048
extern "C" __global__ void __launch_bounds__(THREADS) finish_batch_norm(
    const double* parts, int count, int channels, long long values, int training, const double* mean, const double* inverse,
    const double* scale, double* scale_gradient, double* shift_gradient, float* vectors) {
  __shared__ double room[THREADS];
  int c = blockIdx.x * 32 + (threadIdx.x & 31);
  double total = sum_of_parts(parts, count, 2 * channels, c < channels ? c : 2 * channels, room);
  double products = sum_of_parts(parts, count, 2 * channels, channels + c, room);
  if (threadIdx.x < 32 && c < channels) {
    scale_gradient[c] = products * inverse[c];
    shift_gradient[c] = total;
    double centre = (float)mean[c], factor = scale[c] * inverse[c];
    double slope = training ? products * inverse[c] * inverse[c] / values : 0;
    double constant = training ? total / values - slope * (mean[c] - centre) : 0;
    vectors[c] = (float)centre;
    vectors[channels + c] = (float)factor;
    vectors[2 * channels + c] = (float)(factor * slope);
    vectors[3 * channels + c] = (float)(factor * constant);
  }
}

template <int V>
DEVICE void input_gradient(const T* gy, Strides gy_map, const T* y, Strides y_map, const T* x, Strides x_map, T* gx,
                           Strides gx_map, const float* vectors, int lane_bits, int pixels_per_block, int pixels, int columns,
                           int channels) {
  Share share = share_of_thread<V>(lane_bits, pixels_per_block, pixels, columns, channels);
  if (share.channel >= channels) return;
  float centre[V], factor[V], slope[V], constant[V];
#pragma unroll
  for (int i = 0; i < V; i++) {
    const float* mine = vectors + share.channel + i;
    centre[i] = mine[0];
    factor[i] = mine[channels];
    slope[i] = mine[2 * channels];
    constant[i] = mine[3 * channels];
  }
  for (unsigned pixel = share.first; pixel < share.last; pixel += share.step) {
    float g[V], v[V];
    gradient<V>(gy, gy_map, y, y_map, share, pixel, g);
    load<V>(x + share.at(pixel, x_map), v);
#pragma unroll
    for (int i = 0; i < V; i++) g[i] = g[i] * factor[i] - (v[i] - centre[i]) * slope[i] - constant[i];
    store<V>(gx + share.at(pixel, gx_map), g);
  }
}

// gx = factor g - (x - centre) slope - constant, vectors[4][channels] holding centre, factor, slope and constant.
//@ budget: registers 72, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) batch_norm_input_gradient(
    const T* gy, long long gy_image, long long gy_row, int gy_pixel, const T* y, long long y_image, long long y_row,
    int y_pixel, const T* x, long long x_image, long long x_row, int x_pixel, T* gx, long long gx_image, long long gx_row,
    int gx_pixel, const float* vectors, int lane_bits, int pixels_per_block, int pixels, int columns, int channels, int wide) {
  Strides gy_map{gy_image, gy_row, gy_pixel}, y_map{y_image, y_row, y_pixel}, x_map{x_image, x_row, x_pixel};
  Strides gx_map{gx_image, gx_row, gx_pixel};
  if (wide)
    input_gradient<WIDE>(gy, gy_map, y, y_map, x, x_map, gx, gx_map, vectors, lane_bits, pixels_per_block, pixels, columns,
                         channels);
  else
    input_gradient<1>(gy, gy_map, y, y_map, x, x_map, gx, gx_map, vectors, lane_bits, pixels_per_block, pixels, columns,
                      channels);
}
