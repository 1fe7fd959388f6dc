import { cacheFolder, fromNative, loadAddon, mslHeaders } from '../runtime/addon.js';
import type { CheckRule, Finding } from '../runtime/native.js';

export type { CheckRule, Finding };

/**
 * What Apple's compiler or run time would refuse in a Metal compute text, and traps that the text shows, by line. It is
 * empty for every text that `upgc compile` writes.
 * @param text - of a .metal file
 * @param name - what messages call the text
 * @throws {UserError} when there is no clang to read the text with
 */
export async function checkMetal(text: string, name: string): Promise<readonly Finding[]> {
  try {
    return await loadAddon().checkKernels(text, name, { headers: mslHeaders, cache: cacheFolder() });
  } catch (error) {
    throw fromNative(error);
  }
}

/** All rules of `checkMetal`. */
export function checkRules(): readonly CheckRule[] {
  return loadAddon().checkRules();
}
