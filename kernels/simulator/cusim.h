// What a CUDA kernel needs in order to be compiled for the processor by an ordinary C++ compiler.
//
// The file is included in front of the kernel's source. A launch runs in one operating-system thread: blocks one after
// another, the threads of a block as fibers that hand over to each other only at barriers, warp collectives and explicit
// yields (scheduler.cpp). Memory is ordinary memory: global pointers are the arguments', shared arrays are static variables.
//
// types.h       keywords, vector types, threadIdx and its like
// runtime.h     what kernels and their primitives call: barriers, warp rendezvous, asynchronous copies, errors
// warp.h        __shfl_sync and the other collectives of a warp
// atomics.h     atomicAdd and its like
// arithmetic.h  intrinsics
// launch.h      how Python finds a kernel and hands over its arguments
#pragma once
#include "types.h"
#include "runtime.h"
#include "warp.h"
#include "atomics.h"
#include "arithmetic.h"
#include "launch.h"
