// For what every processor of this kind has: SSE2 on x86-64, NEON on 64-bit Arm.
#define ISA baseline
#define VECTOR_FLOATS 4
#if defined(__aarch64__)
#define REGISTER_ROWS 8  // 32 registers
#else
#define REGISTER_ROWS 4  // 16 registers, and no fused multiply-add
#endif
#include "interface.h"
