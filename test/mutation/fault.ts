import { readFileSync } from 'node:fs';
import path from 'node:path';

/** A deliberate mistake in one file of the repository. */
export interface Fault {
  readonly file: string;
  /** Stands in the file exactly once. */
  readonly find: string;
  readonly replace: string;
  /** What it would do to users, in a line. */
  readonly what: string;
  /** The test files that should find it, by (the start of) their paths; they run first. */
  readonly tests: readonly string[];
}

/** The text of the fault's file below `root`, with the fault. Throws when the file has moved on. */
export function faultyText(root: string, { file, find, replace }: Fault): string {
  const [before, after, ...more] = readFileSync(path.join(root, file), 'utf8').split(find);
  if (before === undefined || after === undefined || more.length > 0) {
    const times = after === undefined ? 'nowhere' : `${more.length + 1} times`;
    throw new Error(`${file} has moved on: the text of a fault stands there ${times}, not once:\n${find}`);
  }
  return `${before}${replace}${after}`;
}

/** Complains about every fault whose file has moved on. */
export function checkFaults(root: string, faults: readonly Fault[]): void {
  const complaints = faults.flatMap((fault) => {
    try {
      faultyText(root, fault);
      return [];
    } catch (error) {
      return [`${String(error)}\n  (${fault.what})`];
    }
  });
  if (complaints.length > 0) throw new Error(`faults to be revised:\n${complaints.join('\n')}`);
}
