// Softmax and cross-entropy of every pixel, in one pass over the scores; nothing of it goes to the host.
//
// With m a pixel's largest score, e_c = exp(s_c - m) and `others` the sum of e_c over all classes but the label:
//
//   -log p_label = log1p(others + (e_label - 1)) + (m - s_label),     p_label - 1 = -others / (others + e_label).
//
// Neither loses digits where p_label is nearly 1: there e_label is 1 and `others` tiny. w is the class weight of the label
// times the pixel's weight, 0 for labels to be ignored and for illegal ones; where it is 0 the scores do not matter, be they
// infinite. Scores are float32: 16-bit ones are widened before.
#include "streaming.cuh"

constexpr int WIDE = 4;  // floats in 16 bytes

// What went wrong in any launch so far, for the host to look at when it next waits for the device anyway.
enum Fault { ILLEGAL, SMALLEST, LARGEST, CLASSES, WITHOUT_WEIGHT };

DEVICE void report_illegal(long long* faults, long long label, int classes) {
  atomicAdd((unsigned long long*)&faults[ILLEGAL], 1ull);
  atomicMin(&faults[SMALLEST], label);
  atomicMax(&faults[LARGEST], label);
  atomicExch((unsigned long long*)&faults[CLASSES], (unsigned long long)classes);
}

struct Scores {
  const float* data;
  long long channel;  // from one class to the next, in elements
  int classes;
};

// The energy of one pixel, and its gradient times `factor`. COUNT: the number of classes, or 0 where it is only known now.
template <int COUNT>
DEVICE float energy_of_pixel(const Scores& scores, int label, float weight, float factor, float* gradient) {
  const int classes = COUNT ? COUNT : scores.classes;
  float top = scores.data[0], own = scores.data[label * scores.channel];
#pragma unroll
  for (int c = 1; c < classes; c++) {
    float score = scores.data[c * scores.channel];
    top = score > top ? score : top;  // a NaN that is passed over here comes back through its exponential
  }
  float mine = expf(own - top), others = 0;
#pragma unroll
  for (int c = 0; c < classes; c++) others += c == label ? 0 : expf(scores.data[c * scores.channel] - top);
  if (gradient) {
    float share = weight * factor / (others + mine);
#pragma unroll
    for (int c = 0; c < classes; c++) {
      float e = c == label ? -others : expf(scores.data[c * scores.channel] - top);
      gradient[c] = weight != 0 ? e * share : 0;
    }
  }
  return weight != 0 ? weight * (log1pf(others + (mine - 1)) + (top - own)) : 0;
}

// Sums of energy, weight and illegal labels over this block's pixels, to parts[block][3]; and, if `gradient` is given,
// gradient[pixel][class] = factor w (p - [class is the label]), the factor being `scale`, times *device_scale if that is
// given. Labels are bytes or whole numbers of 64 bits, whichever pointer is not null.
//@ budget: registers 48, shared 2048
extern "C" __global__ void __launch_bounds__(THREADS) softmax_cross_entropy(
    const float* scores, long long image, long long channel, long long pixel, const unsigned char* byte_labels,
    const long long* labels, const float* weight, const float* pixel_weight, int classes, int pixels, int count,
    long long ignored, float scale, const double* device_scale, float* gradient, double* parts, long long* faults) {
  __shared__ double room[THREADS];
  float factor = device_scale ? (float)(scale * *device_scale) : scale;
  double energy[1] = {}, total[1] = {}, illegal[1] = {};
  for (unsigned at = blockIdx.x * THREADS + threadIdx.x; at < (unsigned)count; at += gridDim.x * THREADS) {
    long long label = byte_labels ? byte_labels[at] : labels[at];
    float w = 0;
    if (label == ignored) {
      label = 0;
    } else if (label < 0 || label >= classes) {
      illegal[0] += 1;
      if (faults) report_illegal(faults, label, classes);
      label = 0;
    } else {
      w = (weight ? weight[label] : 1) * (pixel_weight ? pixel_weight[at] : 1);
    }
    unsigned of_image = at / (unsigned)pixels;
    Scores own{scores + of_image * image + (at - of_image * (unsigned)pixels) * pixel, channel, classes};
    float* to = gradient ? gradient + (long long)at * classes : nullptr;
    if (classes == 2)
      energy[0] += energy_of_pixel<2>(own, (int)label, w, factor, to);
    else
      energy[0] += energy_of_pixel<0>(own, (int)label, w, factor, to);
    total[0] += w;
  }
  if (!parts) return;  // of all threads: the gradient alone is wanted
  sum_over_pixels<1>(energy, room, 0);
  sum_over_pixels<1>(total, room, 0);
  sum_over_pixels<1>(illegal, room, 0);
  if (threadIdx.x == 0) {
    parts[blockIdx.x * 3] = energy[0];
    parts[blockIdx.x * 3 + 1] = total[0];
    parts[blockIdx.x * 3 + 2] = illegal[0];
  }
}

// From the parts of `count` blocks: sums = (energy, weight, illegal labels), share = 1, or 1 / weight with `mean` (0 if no
// pixel has weight, which is a fault), and loss = energy share. One block.
//@ budget: registers 32, shared 2048
extern "C" __global__ void __launch_bounds__(THREADS) finish_cross_entropy(
    const double* parts, int count, int mean, double* sums, double* share, float* loss, long long* faults) {
  __shared__ double room[THREADS];
  double total = sum_of_parts(parts, count, 3, threadIdx.x & 31, room);
  if (threadIdx.x < 3) sums[threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.x == 0 && share) {
    if (mean && sums[1] == 0) atomicAdd((unsigned long long*)&faults[WITHOUT_WEIGHT], 1ull);
    share[0] = !mean ? 1 : sums[1] == 0 ? 0 : 1 / sums[1];
    loss[0] = (float)(mean && sums[1] == 0 ? __int_as_float(0x7fc00000) : sums[0] * share[0]);
  }
}

// out = gradient times gy, the loss's own gradient, times share. Both arrays begin at a multiple of 16 bytes; a thread serves
// the WIDE values that fill 16 bytes.
//@ budget: registers 32, shared 0, needs LDG.E.128 STG.E.128
extern "C" __global__ void __launch_bounds__(THREADS) scale_gradient(
    const float* gradient, float* out, long long size, const double* share, const float* gy) {
  float factor = (float)(*share * *gy);
  long long first = (blockIdx.x * (long long)THREADS + threadIdx.x) * WIDE;
  if (first + WIDE <= size) {
    float v[WIDE];
    load<WIDE>(gradient + first, v);
#pragma unroll
    for (int i = 0; i < WIDE; i++) v[i] *= factor;
    store<WIDE>(out + first, v);
  } else {
    for (long long i = first; i < size; i++) out[i] = gradient[i] * factor;
  }
}
