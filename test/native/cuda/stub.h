// What NVRTC declares before any text, as far as native/msl/cuda and generated units use it, so that clang can compile
// them for a GPU without any part of CUDA: see cuda-unit.test.ts.
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))

// As --device-as-default-execution-space does.
#pragma clang force_cuda_host_device begin

struct UpgcStubIndex {
  unsigned x, y, z;
};
extern const __attribute__((device)) __attribute__((weak)) UpgcStubIndex threadIdx, blockIdx;

extern "C" {
float acosf(float), acoshf(float), asinf(float), asinhf(float), atan2f(float, float), atanf(float), atanhf(float);
float ceilf(float), copysignf(float, float), cosf(float), coshf(float), fabsf(float), floorf(float);
float fmaf(float, float, float), fmaxf(float, float), fminf(float, float), fmodf(float, float), frexpf(float, int*);
int ilogbf(float);
float ldexpf(float, int), log10f(float), log2f(float), powf(float, float), rintf(float), roundf(float), sinf(float);
float sinhf(float), sqrtf(float), tanf(float), truncf(float);
double sin(double), cos(double);
}

int __popcll(unsigned long long), __clzll(long long), __ffsll(long long), __popc(unsigned), __ffs(int);
unsigned long long __brevll(unsigned long long);
inline decltype(sizeof(0)) __cvta_generic_to_shared(const void* p) {
  return (decltype(sizeof(0)))(const __attribute__((address_space(3))) void*)p;
}
unsigned __fns(unsigned, unsigned, int), __activemask(), __ballot_sync(unsigned, int);
unsigned __shfl_sync(unsigned, unsigned, int), __shfl_xor_sync(unsigned, unsigned, int);
void __syncwarp(unsigned), __threadfence(), __threadfence_block();
unsigned atomicExch(unsigned*, unsigned), atomicCAS(unsigned*, unsigned, unsigned), atomicAdd(unsigned*, unsigned);
unsigned long long atomicExch(unsigned long long*, unsigned long long);
unsigned long long atomicCAS(unsigned long long*, unsigned long long, unsigned long long);
unsigned long long atomicAdd(unsigned long long*, unsigned long long);
float atomicAdd(float*, float);
