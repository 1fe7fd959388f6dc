import { chmodSync, mkdirSync, readdirSync, readFileSync, renameSync, symlinkSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import type { NativeKernel } from '../../src/runtime/native.js';
import {
  addon,
  buffers,
  defined,
  failure,
  launchSpec,
  loadLaunch,
  position,
  root,
  run,
  temporaryFolder,
  type Launch,
} from './support.js';

const cache = temporaryFolder();
const options = { headers: `${root}native/msl`, cache };
const inspect = (source: string) => addon.inspectKernels(source, 'kernels.metal', options);

/** `name kind index type space access` of each parameter of the text's only kernel. */
async function parameters(source: string): Promise<string[]> {
  const { kernels } = await inspect(source);
  expect(kernels).toHaveLength(1);
  return defined(kernels[0]).parameters.map(
    ({ name, kind, index, type, addressSpace, access }) =>
      `${name} ${kind} ${index} ${type} ${addressSpace ?? '-'} ${access}`,
  );
}

type Constants = Launch['constants'];

/** Runs kernel `name` once in one thread; returns the first floats of the eight in its only buffer. */
async function outcome(source: string, count: number, name = 'k', constants?: Constants): Promise<number[]> {
  const out = new Float32Array(8);
  await run(cache, {
    source,
    kernel: { name, threads: [1, 1, 1], arguments: buffers(1) },
    data: [out],
    ...(constants && { constants }),
  });
  return [...out.subarray(0, count)];
}

describe('inspectKernels', () => {
  it('lists parameters with kind, index, type, address space, access and place', async () => {
    const source = `#include <metal_stdlib>
using namespace metal;
struct Step { uint position; };
kernel void k(device const float4* x [[buffer(3)]], constant Step& step [[buffer(0)]],
              device half* y [[buffer(1)]], threadgroup float* scratch [[threadgroup(2)]],
              uint3 at [[thread_position_in_grid]], ushort lane [[thread_index_in_simdgroup]]) {}`;
    expect(await parameters(source)).toEqual([
      'x buffer 3 float4 device read',
      'step buffer 0 Step constant read',
      'y buffer 1 half device write',
      'scratch threadgroup 2 float threadgroup write',
      'at thread_position_in_grid 0 uint3 - read',
      'lane thread_index_in_simdgroup 0 ushort - read',
    ]);
    const { kernels, functionConstants, usesAtomics } = await inspect(source);
    expect(defined(kernels[0]).parameters[0]).toMatchObject({ line: 4, column: 36 });
    expect([functionConstants, usesAtomics]).toEqual([[], false]);
  });

  it('gives parameters without an index the lowest free one', async () => {
    expect(
      await parameters(`kernel void k(device float* a, constant float& b [[buffer(1)]], const device int *c,
        device const packed_float3* __restrict d [[buffer(0)]], threadgroup int* s,
        threadgroup int* t [[threadgroup(0)]]) {}`),
    ).toEqual([
      'a buffer 2 float device write',
      'b buffer 1 float constant read',
      'c buffer 3 int device read',
      'd buffer 0 packed_float3 device read',
      's threadgroup 1 int threadgroup write',
      't threadgroup 0 int threadgroup write',
    ]);
  });

  it('takes an array for a pointer', async () => {
    expect(
      await parameters('kernel void k(const constant int x[2] [[buffer(4)]], device half y[]) {}'),
    ).toEqual(['x buffer 4 int constant read', 'y buffer 0 half device write']);
  });

  it('works out indices from macros, constants, enumerators and template arguments', async () => {
    expect(
      await parameters(`#define FIRST 2
        enum Slot { In = FIRST + 1, Out, Next }; constant constexpr int base = 4 * (1 << 1) | 1;
        template <typename T, int slot, typename U = vec<T, 4>>
        kernel void f(device const U* a [[buffer(FIRST)]], device T* b [[buffer(Slot::Out)]],
                      device metal::array<T, slot>* c [[buffer(base - slot)]]) {}
        template [[host_name("k")]] kernel void f<half, 3>(device const vec<half, 4>*, device half*, device void*);`),
    ).toEqual([
      'a buffer 2 vec<half, 4> device read',
      'b buffer 4 half device write',
      'c buffer 6 metal::array<half, 3> device write',
    ]);
  });

  it('finds plain kernels, attributes, host names, namespaces and every form of instantiation', async () => {
    const { kernels } = await inspect(`
      kernel void plain(device float* x) {}
      [[kernel]] void marked(device float* x) {}
      [[host_name("by host"), max_total_threads_per_threadgroup(8 * 32)]] kernel void named(device float* x) {}
      namespace a { namespace { kernel void inner(device float* x) {} } }
      void helper(device float* x) {}
      template <typename T> void no_kernel(device T* x) {}
      template void no_kernel<float>(device float*);
      template <typename T, int n> [[kernel]] void t(device T* x [[buffer(0)]]) {}
      template [[host_name("t_full")]] [[kernel]] void t<float, 4>(device float* x [[buffer(0)]]);
      template [[host_name("t_deduced")]] [[kernel]] decltype(t<half, 8>) t<half, 8>;
      typedef decltype(t<int, 1>) int_t;
      template [[host_name("t_" "typedef")]] kernel int_t t<int, (3 > 2)>;
      struct S { void kernel_like(device float* x) {} };`);
    expect(kernels.map(({ name, function: f, maxTotalThreads }) => [name, f, maxTotalThreads])).toEqual([
      ['plain', 'plain', undefined],
      ['marked', 'marked', undefined],
      ['by host', 'named', 256],
      ['inner', 'inner', undefined],
      ['t_full', 't<float, 4>', undefined],
      ['t_deduced', 't<half, 8>', undefined],
      ['t_typedef', 't<int, (3 > 2)>', undefined],
    ]);
    const types = kernels.map((kernel) => kernel.parameters[0]?.type);
    expect(types).toEqual(['float', 'float', 'float', 'float', 'float', 'half', 'int']);
  });

  it('lists function constants and notices atomics', async () => {
    const { functionConstants, usesAtomics } = await inspect(`#define INDEX 7
      constant bool fast [[function_constant(0)]]; constant constexpr int unrelated = 3;
      static constant uint width [[function_constant(INDEX + 1)]];
      void count(device atomic_uint* n) {}`);
    expect(functionConstants).toEqual([
      { name: 'fast', index: 0, type: 'bool' },
      { name: 'width', index: 8, type: 'uint' },
    ]);
    expect(usesAtomics).toBe(true);
  });

  it.each([
    [
      'kernel void k(float x) {}',
      '1:21: kernel k, parameter x: a value needs an attribute like [[thread_position_in_grid]]; what a host gives is a `constant T&` or `device T*`',
    ],
    [
      'kernel void k(float* x) {}',
      '1:22: kernel k, parameter x: a pointer or reference needs device, constant or threadgroup',
    ],
    [
      'kernel void k(device float* x [[threadgroup(0)]]) {}',
      '1:29: kernel k, parameter x: [[threadgroup]] does not fit the address space device',
    ],
    [
      'kernel void k(device float* x [[buffer(31)]]) {}',
      '1:29: kernel k, parameter x: buffer 31 is above 30',
    ],
    ['kernel void k(device float* x [[buffer(n)]]) {}', '1:33: `buffer` needs an integer constant, not `n`'],
    [
      'kernel void k(device float* x [[buffer(1)]], device float* y [[buffer(1)]]) {}',
      '1:60: kernel k, parameter y: buffer 1 is used twice',
    ],
    [
      'kernel void k(texture2d<float> t) {}',
      '1:32: kernel k, parameter t: textures and samplers are not supported; use a buffer',
    ],
    [
      'kernel void k() {}\nkernel void k(device int* x) {}',
      '2:13: two kernels are called k; give one another name with [[host_name("...")]]',
    ],
    [
      'kernel void k(device int* x [[buffer(0), function_constant(1)]]) {}',
      '1:42: function_constant is supported on `constant T name [[function_constant(n)]];` only; write one and use `if (name)`',
    ],
    [
      'template [[host_name("k")]] [[kernel]] void f<int>(device int*);',
      '1:45: kernel k is an instantiation of f<int>, which the text does not define as a kernel',
    ],
  ])('refuses %s', async (source, message) => {
    expect(await failure(() => inspect(source))).toEqual({
      code: 'UPGC_COMPILE',
      message: `kernels.metal:${message}`,
    });
  });

  it('refuses arguments of other types', async () => {
    const given = async (...values: unknown[]): Promise<string> => {
      const untyped = addon as unknown as Record<
        'inspectKernels',
        (...values: unknown[]) => Promise<unknown>
      >;
      const { code, message } = await failure(() => untyped.inspectKernels(...values));
      expect(code).toBe('UPGC_BAD_PLAN');
      return message;
    };
    expect(await given(3, 'a', options)).toBe('source must be a string, not 3');
    expect(await given('', 'a', {})).toBe('options.headers must be a string, not undefined');
    expect(await given('', 'a\nb', options)).toBe('sourceName must be a path without control characters');
  });
});

describe('text of others runs', () => {
  it('by host name: one instantiation of a template, in a namespace too', async () => {
    const source = `
      namespace lib { namespace {
        struct Two { static constant constexpr int value = 2; };
        template <typename T, typename N>
        [[kernel]] void fill(device T* out [[buffer(0)]]) {
          for (int i = 0; i < N::value; i++) out[i] = T(7) / N::value;
        }
        template [[host_name("fill_two")]] [[kernel]] decltype(fill<float, Two>) fill<float, Two>;
        [[host_name("one")]] kernel void fill_one(device float* out [[buffer(0)]]) { out[0] = 1.5; }
      } }
      template [[host_name("fill_int")]] [[kernel]] void lib::fill<int, lib::Two>(device int* out [[buffer(0)]]);`;
    expect(await outcome(source, 3, 'fill_two')).toEqual([3.5, 3.5, 0]);
    expect(await outcome(source, 2, 'one')).toEqual([1.5, 0]);
    expect(await outcome(source, 1, 'fill_int')).not.toEqual([0]);
    expect(await failure(() => outcome(source, 1, 'two'))).toEqual({
      code: 'UPGC_COMPILE',
      message: 'kernels.metal has no kernel two; it has: one, fill_two, fill_int',
    });
  });

  it('where kernels of one name differ in their parameters', async () => {
    const source = `
      template <typename T> [[kernel]] void f(device T* out [[buffer(0)]], device T* more [[buffer(1)]]) {}
      template <typename T, int n> [[kernel]] void f(device T* out [[buffer(0)]]) { out[0] = n; }
      template <typename T> [[kernel]] void f(device T* out [[buffer(0)]], device T* a, device T* b) {}
      template [[host_name("k")]] [[kernel]] void f<float, 5>(device float* out [[buffer(0)]]);`;
    expect(await outcome(source, 1)).toEqual([5]);
    expect(await parameters(source)).toEqual(['out buffer 0 float device write']);
  });

  it('with functions and methods for every address space', async () => {
    const source = `
      float first(device const float* p) { return p[0] * 2; }
      float first(threadgroup const float* p) { return p[0] * 2; }
      float first(constant float* p) { return p[0] * 2; }
      template <typename T> METAL_FUNC T last(const device T* p, int n) { return p[n - 1]; }
      template <typename T> METAL_FUNC T last(const threadgroup T* p, int n) { return p[n - 1]; }
      struct Pair {
        float x, y;
        Pair(float a, float b) thread : x(a), y(b) {}
        Pair(float a, float b) constant : x(a), y(b) {}
        Pair(float a, float b) threadgroup : x(a), y(b) {}
        float product() constant { return x * y; }
        float product() const device { return x * y; }
        float sum() const thread { return x + y; }
        float sum() const device { return x + y; }
        float sum() const constant { return x + y; }
        operator float() const thread { return x; }
        operator float() const threadgroup { return x; }
      };
      constant float table[] = {4, 5};
      kernel void k(device float* out [[buffer(0)]]) {
        threadgroup float shared[2];
        shared[0] = 3, shared[1] = 9;
        out[0] = first(shared);
        out[1] = first(table);
        out[2] = last(shared, 2);
        Pair pair(1, 2);
        out[3] = pair.sum();
        out[4] = pair;
        out[5] = pair.product();
      }`;
    expect(await outcome(source, 6)).toEqual([6, 8, 9, 3, 1, 2]);
  });

  it('but not where address spaces select other text', async () => {
    const source = `float f(device float* p) { return 1; }\nfloat f(threadgroup float* p) { return 2; }
      kernel void k(device float* out [[buffer(0)]]) { out[0] = f(out); }`;
    expect(await failure(() => outcome(source, 1))).toEqual({
      code: 'UPGC_COMPILE',
      message:
        'kernels.metal:4:7: `f` differs from that of line 3 in address spaces and in its text; here, where address spaces do not tell functions apart, give one another name',
    });
  });

  it('with float literals that are float', async () => {
    const text = `template <typename T> int size(T) { return sizeof(T); }
      kernel void k(device float* out [[buffer(0)]]) {
        out[0] = size(0.5) + size(1.0) + size( 1e3 ) + size(.25) + size(2.) + size(0x1p3) + size(1'0.125);
        out[1] = (16777216.0 + 1.0 == 16777216.0) ? 1.0:2.0; out[2] = size(1.0h); out[3] = __LINE__; out[4] = 0x1e;
        out[5] = 0.25 * 2.0 + 1.0; missing;
      }`;
    expect(await outcome(text.replace('missing;', ''), 6)).toEqual([28, 1, 2, 6, 30, 1.5]);
    // Columns stay: each f takes the place of a 0 or a space.
    const column = 1 + defined(text.split('\n')[4]).indexOf('missing');
    expect((await failure(() => outcome(text, 1))).message).toContain(`kernels.metal:7:${column}: error`);
  });

  it('with threadgroup variables of templates, aligned ones and lists', async () => {
    const out = new Float32Array(8);
    await run(cache, {
      source: `
      template <typename T, uint n> T turned(T mine, uint lane) {
        threadgroup alignas(64) T all[n], spare;
        alignas(16) threadgroup metal::vec<T, 4> wide;
        all[lane] = mine;
        if (lane == 0) spare = T(100), wide = metal::vec<T, 4>(T(1000));
        threadgroup_barrier(mem_flags::mem_threadgroup);
        return all[n - 1 - lane] + spare + wide.w;
      }
      kernel void k(device float* out [[buffer(0)]], uint i [[thread_position_in_grid]]) {
        out[i] = turned<float, 8>(float(i), i);
      }`,
      kernel: {
        name: 'k',
        threads: [8, 1, 1],
        arguments: [...buffers(1), position('thread_position_in_grid')],
      },
      data: [out],
    });
    expect([...out]).toEqual([1107, 1106, 1105, 1104, 1103, 1102, 1101, 1100]);
  });

  it('with reserved names for its own types, which mean nothing to the compiler', async () => {
    const source = `struct __None { static constant constexpr float value = 3; }; struct _Mask__ : __None {};
      struct __asm__ {};
      template <typename T> [[kernel]] void f(device float* out [[buffer(0)]]) { out[0] = T::value; }
      template [[host_name("k")]] [[kernel]] void f<_Mask__>(device float* out [[buffer(0)]]);`;
    expect(await outcome(source, 1)).toEqual([3]);
    expect((await failure(() => outcome(`${source} void g() { __asm__("nop"); }`, 1))).message).toMatch(
      /kernels.metal:6:\d+: error: .*uuasm/,
    );
  });

  it('with macros, conditions and pragmas', async () => {
    const source = `#define KERNEL(name, value)     \\
        kernel void name(device float* out [[buffer(0)]]) { \\
          _Pragma("clang loop unroll(full)") for (int i = 0; i < 4; i++) out[i] += value; \\
          out[4] = __LINE__; \\
        }
      #ifdef M_PI_F
      KERNEL(k, FLT_MAX == 0 ? INFINITY : 2)
      #elif __METAL_VERSION__ < 100
      #error no
      #endif`;
    expect(await outcome(source, 6)).toEqual([2, 2, 2, 2, 9, 0]);
    const loops = `kernel void k(device float* out [[buffer(0)]]) {
      #pragma unroll(full)
      for (int i = 0; i < 3; i++) out[i] = i;
      [[unroll]] for (int i = 3; i < 4; i++) out[i] = i;
    }`;
    expect(await outcome(loops, 4)).toEqual([0, 1, 2, 3]);
    expect((await failure(() => inspect('#if 1\nkernel void k() {}'))).message).toContain(
      'kernels.metal:1:2: error: unterminated conditional directive',
    );
  });
});

describe('function constants', () => {
  const source = `
    constant bool quick[[function_constant(0)]];
    constant float scale [[function_constant(1)]];
    constant int count [[function_constant(2)]]; constant half h [[function_constant(3)]];
    constant uint most = is_function_constant_defined(count) ? uint(count) : 40u;
    kernel void k(device float* out [[buffer(0)]]) {
      if (quick) out[0] = scale;
      out[1] = most; out[2] = h; out[3] = is_function_constant_defined(quick) ? 1 : 2;
    }`;
  const [scale, h] = [
    { index: 1, value: 1e30 },
    { index: 3, value: 0.5 },
  ];

  it('have the values that the host gives', async () => {
    const all = [
      { index: 0, value: true },
      { index: 1, value: 0.1 },
      { index: 2, value: 12 },
      { index: 3, value: -2 },
    ];
    expect(await outcome(source, 4, 'k', all)).toEqual([Math.fround(0.1), 12, -2, 1]);
    expect(await outcome(source, 4, 'k', [scale, h])).toEqual([0, 40, 0.5, 2]);
  });

  it.each([
    [
      [],
      'kernels.metal:5:20: function constant scale (1) has no value; give one, or ask is_function_constant_defined(scale)',
    ],
    [
      [scale, h, { index: 2, value: 0.5 }],
      'kernels.metal:6:18: function constant count is 0.5, which is no int',
    ],
    [
      [scale, h, { index: 0, value: 2 }],
      'kernels.metal:4:19: function constant quick is 2, which is no bool',
    ],
    [
      [scale, h, { index: 0, value: NaN }],
      'spec.functionConstants[2].value must be a finite number or a boolean, not nan',
    ],
    [[scale, h, { index: 1, value: 2 }], 'function constant 1 is given twice'],
  ])('need a value of their type: %j', async (constants, message) => {
    expect((await failure(() => outcome(source, 1, 'k', constants))).message).toBe(message);
  });
});

it('tells the headers which swizzles and parts the text has', async () => {
  const folder = temporaryFolder();
  const spec = launchSpec(folder, {
    source: `struct S { float xy, abcd, xyzwx, rgx; float2 zx; };
      kernel void k(device S* s [[buffer(0)]], device float4* v [[buffer(1)]]) {
        s->xy = s[0].abcd + s[0].xyzwx + s[0].rgx + v[0].x; s[0].zx.y = 2.5bf; // .www quad_sum
      }`,
    kernel: { name: 'k', threads: [1, 1, 1], arguments: buffers(2) },
    data: [new Float32Array(8), new Float32Array(4)],
  });
  (await addon.createProgram('cpu', spec)).close();
  const unit = readFileSync(path.join(folder, defined(readdirSync(folder)[0]), 'kernels.cpp'), 'utf8');
  expect(unit.split('#include')[0]?.trim().split('\n')).toEqual([
    '#define UPGC_SELECTS_PARTS',
    '#define UPGC_USES_BFLOAT',
    '#define UPGC_SWIZZLES(M) M(xy) M(zx)',
  ]);
});

it('refuses cached kernels behind links, and those that others could have written', async () => {
  const compile = async (folder: string): Promise<void> => {
    const source = 'kernel void k(device float* out [[buffer(0)]]) { out[0] = 42; }';
    const kernel: NativeKernel = { name: 'k', threads: [1, 1, 1], arguments: buffers(1) };
    (await loadLaunch(folder, { source, kernel, data: [new Float32Array(1)] })).close();
  };
  const folder = path.join(temporaryFolder(), 'cache');
  mkdirSync(folder, { mode: 0o700 });
  symlinkSync(folder, `${folder}-link`);
  expect(await failure(() => compile(`${folder}-link`))).toEqual({
    code: 'UPGC_IO',
    message: `${folder}-link is a link; compiled kernels are read from real folders only`,
  });
  const advice =
    'can be written by other users; compiled kernels are code, so give another folder or take that right away';
  chmodSync(folder, 0o770);
  expect((await failure(() => compile(folder))).message).toBe(`${folder} ${advice}`);
  chmodSync(folder, 0o700);
  await compile(folder);
  const entry = path.join(folder, defined(readdirSync(folder)[0]));
  const library = path.join(entry, 'kernels.so');
  for (const place of [entry, library]) {
    chmodSync(place, 0o722);
    expect((await failure(() => compile(folder))).message).toBe(`${place} ${advice}`);
    chmodSync(place, 0o700);
  }
  renameSync(library, `${entry}-moved`);
  symlinkSync(`${entry}-moved`, library);
  expect((await failure(() => compile(folder))).message).toContain('kernels.so is a link');
});

it.each([
  ['kernel void k(device float* x) {', 'kernels.metal:3:32: `{` is never closed'],
  ['kernel void k(device float* x) { x[0] = 1); }', 'kernels.metal:3:42: `)` closes no `(`'],
  ['kernel void k(device float* x) { x[0 = 1; }', 'kernels.metal:3:43: `}` closes no `{`'],
])('says where brackets do not match: %s', async (source, expected) => {
  const kernel: NativeKernel = { name: 'k', threads: [1, 1, 1], arguments: buffers(1) };
  const { message } = await failure(() => loadLaunch(cache, { source, kernel, data: [new Float32Array(1)] }));
  expect(message).toBe(expected);
});
