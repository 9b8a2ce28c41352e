// What makes the shared library a Python extension module (so that setuptools builds and finds it), and the question
// which instruction sets this processor and operating system support. The kernels themselves are called by ctypes.
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

extern "C" __attribute__((visibility("default"))) int supports_avx2() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return 0;
#endif
}

extern "C" __attribute__((visibility("default"))) int supports_avx512() {
#if defined(__x86_64__)
  return supports_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#else
  return 0;
#endif
}

static PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_cpu_kernels", "Compiled kernels, called by ctypes.", 0, nullptr,
                                 nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__cpu_kernels() { return PyModule_Create(&definition); }
