import type { Fault } from '../fault.js';
import { codegenFaults } from './codegen.js';
import { irFaults } from './ir.js';
import { modelFaults } from './models.js';
import { nativeFaults } from './native.js';
import { passFaults } from './passes.js';
import { runtimeFaults } from './runtime.js';
import { templateFaults } from './templates.js';

export const faults: readonly Fault[] = [
  ...modelFaults,
  ...irFaults,
  ...passFaults,
  ...codegenFaults,
  ...templateFaults,
  ...runtimeFaults,
  ...nativeFaults,
];
