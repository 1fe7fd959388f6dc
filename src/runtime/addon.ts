import { createRequire } from 'node:module';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { relativeTo, UserError } from '../diagnostic.js';
import type { NativeAddon, NativeErrorCode } from './native.js';

const packageRoot = fileURLToPath(new URL('../../', import.meta.url));

/** Headers that give Metal text its meaning off Apple. */
export const mslHeaders = path.join(packageRoot, 'native', 'msl');

let addon: NativeAddon | undefined;

/** The native addon; throws UserError when it has not been built. */
export function loadAddon(): NativeAddon {
  if (addon) return addon;
  const file = path.join(packageRoot, 'native', 'build', 'Release', 'upgc.node');
  const setup = relativeTo(process.cwd(), path.join(packageRoot, 'native', 'setup.mjs'));
  const notes = [`run \`node ${setup}\``];
  if (!existsSync(file)) throw new UserError('the native addon is not built', { notes });
  try {
    addon = createRequire(import.meta.url)(file) as NativeAddon;
  } catch (error) {
    throw new UserError(`the native addon cannot be loaded: ${String(error)}`, { notes });
  }
  return addon;
}

/** The best device of this machine; the CPU, where the addon is not built and nothing can run anyway. */
export function bestDevice(): string {
  try {
    return loadAddon().devices()[0] ?? 'cpu';
  } catch {
    return 'cpu';
  }
}

/** Where compiled kernels are kept: UPGC_CACHE, or the user's cache folder. */
export function cacheFolder(): string {
  const { UPGC_CACHE: own, XDG_CACHE_HOME: xdg } = process.env;
  if (own) return path.resolve(own);
  if (process.platform === 'darwin') return path.join(homedir(), 'Library', 'Caches', 'upgc');
  return path.join(xdg ?? path.join(homedir(), '.cache'), 'upgc');
}

/** Codes whose message is about something the user can mend. */
const userCodes: ReadonlySet<string> = new Set<NativeErrorCode>([
  'UPGC_UNKNOWN_DEVICE',
  'UPGC_NO_CLANG',
  'UPGC_NO_CUDA',
  'UPGC_COMPILE',
  'UPGC_BAD_PLAN',
  'UPGC_IO',
  'UPGC_KERNEL',
  'UPGC_SANITIZER',
]);

/** An error of the addon as one for the user; other values pass through. */
export function fromNative(error: unknown, advice: readonly string[] = []): unknown {
  if (!(error instanceof Error) || !('code' in error) || !userCodes.has(String(error.code))) return error;
  const aboutCache =
    error.code === ('UPGC_IO' satisfies NativeErrorCode) && error.message.includes(cacheFolder());
  const cache = aboutCache ? ['set UPGC_CACHE to a folder that can be written'] : [];
  return new UserError(error.message, { notes: [...cache, ...advice] });
}
