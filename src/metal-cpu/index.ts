/** Metal compute kernels without a Mac: compiles `.metal` text and runs its kernels on the CPU. */
export { MetalOnCpu, type Launch, type LibraryOptions, type RunResult } from './metal-on-cpu.js';
export type { BufferValue } from './buffer-value.js';
export type { Size } from './size.js';
export type { InspectedKernel, InspectedParameter } from '../runtime/native.js';
export { checkMetal, checkRules, type CheckRule, type Finding } from './check.js';
export { UserError } from '../diagnostic.js';
