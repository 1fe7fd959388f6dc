import { availableParallelism } from 'node:os';
import { cacheFolder, loadAddon, mslHeaders } from '#dist/runtime/addon.js';

const steps = 1000;
const dispatches = 100;
const repetitions = 5;

/** Nanoseconds a dispatch of four threadgroups that do next to nothing, the least of a few runs. */
async function dispatchTime(threads: number, bytes: number): Promise<number> {
  const program = await loadAddon().createProgram('cpu', {
    source: `#include <metal_stdlib>
      using namespace metal;
      kernel void touch(device uint* x [[buffer(0)]], uint group [[threadgroup_position_in_grid]]) {
        x[16 * group] += 1;
      }`,
    sourceName: 'touch.metal',
    simdWidth: 1,
    kernels: [
      {
        name: 'touch',
        threads: [1, 1, 1],
        arguments: [
          { kind: 'buffer', index: 0, bytes: 0 },
          { kind: 'threadgroup_position_in_grid', index: 0, bytes: 0 },
        ],
      },
    ],
    arenas: [{ name: 'x', bytes }],
    entries: [
      {
        name: 'run',
        dispatches: Array.from({ length: dispatches }, () => ({
          kernel: 0,
          grid: [4, 1, 1] as const,
          bindings: [{ arena: 0, offset: 0, bytes }],
          barrier: true,
        })),
      },
    ],
    headers: mslHeaders,
    cache: cacheFolder(),
    threads,
  });
  let least = Infinity;
  for (let i = 0; i < repetitions; i++) {
    const started = performance.now();
    await program.submit(0, steps);
    least = Math.min(least, ((performance.now() - started) * 1e6) / (steps * dispatches));
  }
  program.close();
  return Math.round(least);
}

export interface DispatchTimes {
  /** Of one small enough for the submitting thread. */
  readonly alone: number;
  /** Of one that is shared, by the number of OS threads. */
  readonly shared: readonly (readonly [threads: number, nanoseconds: number])[];
}

/** Nanoseconds that a dispatch costs beside the work of its kernel. */
export async function dispatchTimes(): Promise<DispatchTimes> {
  const shared: [number, number][] = [];
  for (const count of [2, 4, 8, 16])
    if (count <= availableParallelism()) shared.push([count, await dispatchTime(count, 1 << 16)]);
  return { alone: await dispatchTime(1, 256), shared };
}
