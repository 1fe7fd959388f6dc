// Address spaces under the strict check. Each of OpenCL's converts to no other but `generic`, which is what pointers
// and references without an address space have in the headers; the check passes over errors that name it.
#pragma once

#define device __attribute__((opencl_global_device))
#define threadgroup __local
#define thread __private
#define constant const __attribute__((opencl_global_host))
// What the loader writes for `constant` before a variable of the program or of a function: OpenCL has such variables in
// __global alone. The names are short so that columns stay where they were.
#define upgc_pc const __global
#define upgc_fc static const __global
/// What the loader makes a variable in threadgroup memory a reference to; OpenCL has them only in its own kernels.
struct upgc_any {
  template <class T>
  operator T&() const;
};

// Keywords of OpenCL that are plain names in Metal.
#define addrspace_cast upgc_addrspace_cast
#define generic upgc_generic
#define global upgc_global
#define local upgc_local
#define pipe upgc_pipe
#define read_only upgc_read_only
#define read_write upgc_read_write
#define vec_step upgc_vec_step
#define write_only upgc_write_only
