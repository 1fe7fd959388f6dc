import path from 'node:path';
import type { Session } from 'upgc/runtime';
import { readTensor } from '../../src/weights/read.js';
import { openSafetensors } from '../../src/weights/safetensors.js';

export interface Golden {
  readonly inputIds: readonly number[];
  /** Row-major [inputIds.length, vocabulary]. */
  readonly logits: readonly number[];
  /** The input ids, then their greedy continuation. */
  readonly greedyIds: readonly number[];
}

/** The reference outputs in a fixture folder. */
export function readGolden(folder: string, name = 'golden'): Golden {
  const { tensors } = openSafetensors(path.resolve('test/fixtures', folder, `${name}.safetensors`));
  const read = (name: string): number[] => {
    const entry = tensors.get(name);
    if (!entry) throw new Error(`the golden file has no ${name}`);
    return [...readTensor(entry)];
  };
  return { inputIds: read('input_ids'), logits: read('logits'), greedyIds: read('greedy_ids') };
}

/** max |a − b|; infinite when the lengths differ or anything is not a number. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < a.length; i++) {
    const difference = Math.abs((a[i] ?? NaN) - (b[i] ?? NaN));
    if (Number.isNaN(difference)) return Infinity;
    largest = Math.max(largest, difference);
  }
  return largest;
}

export async function generateGreedily(
  session: Session,
  tokens: readonly number[],
  maxTokens: number,
): Promise<{ ids: number[]; text: string }> {
  const ids: number[] = [];
  let text = '';
  for await (const token of session.generate(tokens, { maxTokens, greedy: true, ignoreEos: true })) {
    ids.push(token.id);
    text += token.text;
  }
  return { ids, text };
}
