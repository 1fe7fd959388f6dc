import { it } from 'vitest';
import type { TargetName } from '../../src/passes/target.js';
import { loadAddon } from '../../src/runtime/addon.js';

/** A build's target and the device that it runs on. */
export interface Run {
  readonly target: TargetName;
  readonly device: 'cpu' | 'cuda';
}

export const hasCuda = loadAddon().devices().includes('cuda');

const everywhere: readonly Run[] = [
  { target: 'cpu', device: 'cpu' },
  { target: 'metal', device: 'cpu' },
];

const onGpu: readonly Run[] = [
  { target: 'cuda', device: 'cuda' },
  { target: 'metal', device: 'cuda' },
];

/** What tests of whole builds run on: every device that this machine has, with every target that fits it. */
export function runs(): readonly Run[] {
  if (hasCuda) return [...everywhere, ...onGpu];
  noteSkipped();
  return everywhere;
}

/** What tests of kernels for 32 lanes run on: these targets on the CPU device, and the GPU if this machine has one. */
export function laneRuns(...onCpu: readonly TargetName[]): readonly Run[] {
  if (!hasCuda) noteSkipped();
  return [...onCpu.map((target) => ({ target, device: 'cpu' }) as const), ...(hasCuda ? onGpu : [])];
}

let noted = false;

/** Makes the summary count, once a file, what is missing on a machine without a GPU. */
export function noteSkipped(): void {
  if (!noted) it.skip('skipped: no CUDA device');
  noted = true;
}
