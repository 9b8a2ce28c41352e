// Orders of a part of a block, by the services that primitives for barriers in shared memory are made of (runtime.h).

extern "C" __global__ void halves(float* y) {  // a barrier for each half of the block
  __shared__ float s[128];
  const int t = threadIdx.x, half = t / 64;
  for (int i = 0; i < 3; i++) {
    s[t] = t + i;  // <- halves: race
    if (BUGGY) __syncwarp();
    else cusim::barrier(1 + half, 64, __LINE__);
    y[t] = s[half * 64 + 63 - t % 64];
    cusim::barrier(1 + half, 64, __LINE__);
  }
}

extern "C" __global__ void message(float* y) {  // thread 40 writes, tells thread 0, which reads
  __shared__ float data;
  __shared__ int flag;
  const int t = threadIdx.x;
  if (t == 0) flag = 0;
  __syncthreads();
  if (t == 40) {
    data = 3;
    if (!BUGGY) cusim::release(&flag);
    *(volatile int*)&flag = 1;
  }
  if (t == 0) {
    while (*(volatile int*)&flag == 0) cusim::yield_();
    cusim::acquire(&flag);
    y[0] = data;  // <- message: race
  }
}

extern "C" __global__ void handed_back(float* y) {  // 63 threads read and say so, then thread 0 writes; one does not say it
  __shared__ float data;
  __shared__ int count;
  const int t = threadIdx.x;
  if (t == 0) {
    data = 1;
    count = 0;
  }
  __syncthreads();
  if (t) {
    y[t] = data;
    if (!BUGGY || t != 37) cusim::release(&count);
    atomicAdd(&count, 1);
  } else {
    while (*(volatile int*)&count < 63) cusim::yield_();
    cusim::acquire(&count);
    data = 2;  // <- handed_back: race
  }
}
