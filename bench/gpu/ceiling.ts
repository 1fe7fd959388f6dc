import { cacheFolder, loadAddon, mslHeaders } from '#dist/runtime/addon.js';

const bytes = 4 * 2 ** 30;
const threads = 256;
const shapes = [8, 16, 32].map((perCore) => perCore * 132);
const repetitions = 5;

/** GB/s at which a device reads memory that no cache holds, the best of a few ways to deal it out. */
export async function readCeiling(device: string): Promise<number> {
  const program = await loadAddon().createProgram(device, {
    source: `#include <metal_stdlib>
      using namespace metal;
      kernel void read(device const uint4* x [[buffer(0)]], device uint* y [[buffer(1)]],
                       uint index [[thread_position_in_grid]], uint count [[threads_per_grid]]) {
        uint4 all = uint4(0);
        for (uint i = index; i + 3 * count < ${bytes / 16}; i += 4 * count)
          all = all ^ x[i] ^ x[i + count] ^ x[i + 2 * count] ^ x[i + 3 * count];
        if ((all.x ^ all.y ^ all.z ^ all.w) == 1) y[0] = index;
      }`,
    sourceName: 'read.metal',
    simdWidth: 32,
    kernels: [
      {
        name: 'read',
        threads: [threads, 1, 1],
        arguments: [
          { kind: 'buffer', index: 0, bytes },
          { kind: 'buffer', index: 1, bytes: 4 },
          { kind: 'thread_position_in_grid', index: 0, bytes: 0 },
          { kind: 'threads_per_grid', index: 0, bytes: 0 },
        ],
      },
    ],
    arenas: [
      { name: 'x', bytes },
      { name: 'y', bytes: 4 },
    ],
    entries: shapes.map((groups) => ({
      name: `read ${groups}`,
      dispatches: [
        {
          kernel: 0,
          grid: [groups, 1, 1] as const,
          bindings: [
            { arena: 0, offset: 0, bytes },
            { arena: 1, offset: 0, bytes: 4 },
          ],
          barrier: true,
        },
      ],
    })),
    headers: mslHeaders,
    cache: cacheFolder(),
  });
  const steps = 10;
  let best = 0;
  for (const [entry] of shapes.entries()) {
    for (let i = 0; i < repetitions; i++) {
      const started = performance.now();
      await program.submit(entry, steps);
      best = Math.max(best, (steps * bytes) / ((performance.now() - started) * 1e6));
    }
  }
  program.close();
  return best;
}
