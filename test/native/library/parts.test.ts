import { readdirSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { launchSpec, root, addon, buffers, temporaryFolder } from '../support.js';
import { expectValues } from './support.js';

const folder = temporaryFolder();
const library = path.join(root, 'native/msl');

async function compile(statement: string, headers: string): Promise<void> {
  const spec = launchSpec(path.join(folder, 'cache'), {
    source: `kernel void test(device float* out [[buffer(0)]]) { ${statement} }`,
    kernel: { name: 'test', threads: [1, 1, 1], arguments: buffers(1) },
    data: [new Float32Array(1)],
    simdWidth: 1,
  });
  (await addon.createProgram('cpu', { ...spec, headers })).close();
}

const parts: [part: string, statement: string][] = [
  ['NONE', 'out[0] = simd_sum(dot(float3(1), float3(2))) + exp(out[0]);'],
  ['ATOMIC', 'atomic_uint x; atomic_store_explicit(&x, 1u, memory_order_relaxed);'],
  ['none', 'out[0] = 1.0H;'],
  ['BFLOAT', 'out[0] = 1.5bf;'],
  ['BFLOAT', 'out[0] = float(bfloat4(bfloat(out[0])).x);'],
  ['BUILTINS', 'out[0] = __metal_exp(out[0], __METAL_MAYBE_FAST_MATH__);'],
  ['MATRIX', 'out[0] = determinant(float2x2(out[0]));'],
  ['PACK', 'out[0] = float(pack_float_to_unorm4x8(float4(out[0])));'],
  ['PACKED', 'out[0] = packed_float3(out[0]).x;'],
  ['QUAD', 'out[0] = quad_sum(out[0]);'],
  ['SIMDGROUP_MATRIX', 'simdgroup_store(simdgroup_float8x8(1.0f), out);'],
];

// The loader includes only the parts whose words a text has.
it.each(parts)('compiles with the part %s alone', (_part, statement) => compile(statement, library));

it("has all of Metal's headers for compute kernels", async () => {
  const headers = readdirSync(library).filter((name) => name.startsWith('metal_'));
  expect(headers).toEqual(
    expect.arrayContaining(
      [
        'array atomic common compute geometric integer limits math matrix pack relational simdgroup',
        'simdgroup_matrix stdlib type_traits types uniform',
      ]
        .join(' ')
        .split(' ')
        .map((name) => `metal_${name}`),
    ),
  );
  await compile(`\n${headers.map((name) => `#include <${name}>`).join('\n')}\n`, library);
});

it('has the builtins that public kernels call by name', () =>
  expectValues(
    [
      ['__metal_fma(2.0f, 3.0f, float(one))', 'float', 7],
      ['__metal_fmax(2.0f, 3.0f, __METAL_FAST_MATH__) + __metal_divide(1.0f, 2.0f, 0)', 'float', 3.5],
      ['__metal_frexp(8.0f, &exponent) + float(exponent)', 'float', 4.5, 'int exponent = 4 * one;'],
      ['__metal_simd_sum(3.0f) + __metal_simd_shuffle_xor(1.0f, 0)', 'float', 4],
      ['__metal_simd_shuffle_and_fill_down(1, 2, 1, __metal_get_simdgroup_size(ushort()))', 'int', 2n],
      ['__metal_get_thread_index_in_simdgroup(ushort())', 'ushort', 0n],
    ],
    1,
  ));
