import vm from 'node:vm';
import fc from 'fast-check';
import { expect } from 'vitest';
import { renderError, Unsupported, UserError } from '../../src/diagnostic.js';

/** Damaged inputs, and what must become of them: they are used, or an error for the user says what is wrong. */

/** A mistake in a file's bytes. */
type ByteDamage = (bytes: Buffer) => Buffer;

/** Mistakes in the first `length` bytes of a file. */
export function byteDamage(length: number): fc.Arbitrary<ByteDamage> {
  const place = fc.nat(length - 1);
  const set = (at: number, values: readonly number[]): ByteDamage => {
    return (bytes) => {
      const changed = Buffer.from(bytes);
      for (const [i, value] of values.entries()) if (at + i < changed.length) changed[at + i] = value;
      return changed;
    };
  };
  return fc.oneof(
    fc.tuple(place, fc.nat(255)).map(([at, value]) => set(at, [value])),
    fc
      .tuple(place, fc.constantFrom(...Buffer.from('0123456789-.eE,:[]{}"\\ntf')))
      .map(([at, value]) => set(at, [value])),
    fc
      .tuple(place, fc.constantFrom([0, 0, 0, 0], [255, 255, 255, 255], [0, 0, 0, 128]))
      .map(([at, values]) => set(at, values)),
    fc.tuple(place, fc.nat(40)).map(
      ([at, count]): ByteDamage =>
        (bytes) =>
          Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + count)]),
    ),
    fc.tuple(place, place, fc.nat(60)).map(
      ([at, from, count]): ByteDamage =>
        (bytes) =>
          Buffer.concat([bytes.subarray(0, at), bytes.subarray(from, from + count), bytes.subarray(at)]),
    ),
    place.map(
      (at): ByteDamage =>
        (bytes) =>
          bytes.subarray(0, at),
    ),
  );
}

/** JSON cut open: a key may stand twice, and a leaf may be any text. */
type Json = string | { readonly list: Json[] } | { readonly entries: [key: string, value: Json][] };

function cutOpen(value: unknown): Json {
  if (Array.isArray(value)) return { list: value.map(cutOpen) };
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  return { entries: Object.entries(value).map(([key, inner]) => [key, cutOpen(inner)]) };
}

function written(json: Json): string {
  if (typeof json === 'string') return json;
  if ('list' in json) return `[${json.list.map(written).join(',')}]`;
  return `{${json.entries.map(([key, value]) => `${JSON.stringify(key)}:${written(value)}`).join(',')}}`;
}

const deep = (open: string, close: string, levels: number): string =>
  open.repeat(levels) + close.repeat(levels);

const numbers = [
  ...[
    '0',
    '-0',
    '1',
    '2',
    '3',
    '7',
    '-1',
    '0.5',
    '16',
    '64',
    '256',
    '1e-45',
    '1e-320',
    '1e38',
    '1e39',
    '1e999',
  ],
  ...[
    '65536',
    '16777216',
    '2147483647',
    '2147483648',
    '4294967296',
    '1e12',
    '1e15',
    '9007199254740991',
    '1e17',
  ],
];
const kinds = [
  ...[
    'null',
    'true',
    'false',
    '""',
    '"a"',
    '"__proto__"',
    '"constructor"',
    '"\\ud800"',
    '"\\u0000"',
    '"../a"',
  ],
  ...['[]', '{}', '[[]]', '[null]', '[0]', '[1,1]', '{"__proto__":{"a":1}}', '{"a":{}}', 'NaN', '-', ''],
];
const large = [
  JSON.stringify('x'.repeat(100_000)),
  JSON.stringify('\u{1F600}'.repeat(3000)),
  `[${Array(20_000).fill('1').join(',')}]`,
  deep('[', ']', 5000),
  `${'{"a":'.repeat(3000)}1${'}'.repeat(3000)}`,
];

/** The text of a value that may be of any kind, size and shape. */
const anyText = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom(...numbers) },
  { weight: 4, arbitrary: fc.constantFrom(...kinds) },
  { weight: 1, arbitrary: fc.constantFrom(...large) },
  { weight: 2, arbitrary: fc.integer().map(String) },
  { weight: 1, arbitrary: fc.double({ noNaN: true, noDefaultInfinity: true }).map(String) },
  { weight: 1, arbitrary: fc.string({ maxLength: 12 }).map((text) => JSON.stringify(text)) },
  { weight: 1, arbitrary: fc.jsonValue({ maxDepth: 3 }).map((value) => JSON.stringify(value)) },
);

/** A mistake somewhere in a JSON value: a way down from the root, and what is done there. */
type JsonDamage = (json: Json) => void;

function jsonDamage(keys: readonly string[]): fc.Arbitrary<JsonDamage> {
  const key = fc.oneof(
    fc.constantFrom(...keys, '__proto__', 'constructor', 'toString', 'hasOwnProperty', '', '\u0000'),
    fc.string({ maxLength: 8 }),
  );
  const change = fc.record({
    way: fc.array(fc.nat(), { minLength: 1, maxLength: 9 }),
    kind: fc.constantFrom('drop', 'replace', 'replace', 'replace', 'add', 'add', 'twice', 'rename', 'swap'),
    key,
    text: anyText,
  });
  return change.map(({ way, kind, key, text }) => (root) => {
    let at = root;
    for (const [step, choice] of way.entries()) {
      if (typeof at === 'string') return;
      const count = 'list' in at ? at.list.length : at.entries.length;
      const i = count === 0 ? 0 : choice % count;
      const child = 'list' in at ? at.list[i] : at.entries[i]?.[1];
      if (step + 1 < way.length && child !== undefined && typeof child !== 'string') {
        at = child;
        continue;
      }
      damageAt(at, i, { kind, key, text });
      return;
    }
  });
}

function damageAt(
  at: Exclude<Json, string>,
  i: number,
  { kind, key, text }: { readonly kind: string; readonly key: string; readonly text: string },
): void {
  if ('list' in at) {
    const [own] = at.list.slice(i, i + 1);
    if (kind === 'drop' || own === undefined) at.list.splice(i, 1);
    else if (kind === 'twice') at.list.splice(i, 0, own);
    else if (kind === 'add') at.list.push(text);
    else if (kind === 'swap') at.list.splice(i, 1, ...at.list.splice(0, 1, own));
    else at.list[i] = text;
    return;
  }
  const [own] = at.entries.slice(i, i + 1);
  if (kind === 'drop') at.entries.splice(i, 1);
  else if (kind === 'add' || own === undefined) at.entries.push([key, text]);
  else if (kind === 'twice') at.entries.push([own[0], text]);
  else if (kind === 'rename') own[0] = key;
  else if (kind === 'swap')
    [own[1], at.entries[0]] = [at.entries[0]?.[1] ?? text, [at.entries[0]?.[0] ?? key, own[1]]];
  else own[1] = text;
}

/**
 * Texts of a file that is `valid` but for a mistake or a few, in its structure or in its bytes, or that has little to do
 * with it. `keys` are names that may be added anywhere.
 */
export function damagedJson(valid: string, keys: readonly string[] = []): fc.Arbitrary<Buffer> {
  const bytes = Buffer.from(valid);
  return fc.oneof(
    {
      weight: 16,
      arbitrary: fc.array(jsonDamage(keys), { minLength: 1, maxLength: 3 }).map((damages) => {
        const json = cutOpen(JSON.parse(valid));
        for (const damage of damages) damage(json);
        return Buffer.from(written(json));
      }),
    },
    {
      weight: 4,
      arbitrary: fc
        .array(byteDamage(bytes.length), { minLength: 1, maxLength: 3 })
        .map((damages) => damages.reduce<Buffer>((so, damage) => damage(so), bytes)),
    },
    { weight: 1, arbitrary: anyText.map((text) => Buffer.from(text)) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map((list) => Buffer.from(list)) },
  );
}

/** Nothing takes longer, even on a busy machine. */
const limitMs = 10_000;

const clock: { work?: () => unknown } = {};
const context = vm.createContext(clock);
const script = new vm.Script('work()');

/** What `work` returns; throws when it takes too long, be it in an endless loop or a regular expression. */
export function inTime<R>(work: () => R): R {
  clock.work = work;
  return script.runInContext(context, { timeout: limitMs }) as R;
}

/** Passes over an error that names `file` and is short enough to be read; any other is thrown on. */
export function explained(error: unknown, file: string): void {
  if (!(error instanceof UserError || error instanceof Unsupported)) throw error;
  const text = renderError(error);
  expect(text).toContain(file);
  expect(text.length).toBeLessThan(4000);
}

/** Whether the file was opened; otherwise the error must explain. */
export function opensOrExplains(file: string, open: () => void): boolean {
  try {
    inTime(open);
    return true;
  } catch (error) {
    explained(error, file);
    return false;
  }
}

/** The most memory that this process has had so far, in bytes; the system counts in KiB. */
export const peakBytes = (): number => process.resourceUsage().maxRSS * 1024;

const seed = 20261122;

export interface Fuzz<T> {
  readonly runs: number;
  readonly of: fc.Arbitrary<T>;
  /** How a case reads in a report. */
  readonly show: (value: T) => string;
  /** The most memory that all cases together may add to the process's peak, in MiB. */
  readonly mebibytes?: number;
}

/**
 * Tries cases, the same ones every time, and returns how many of them `work` said true of. A case that fails is reported
 * in a few lines: some are of 100,000 characters.
 */
export async function fuzz<T>(
  { runs, of, show, mebibytes = 512 }: Fuzz<T>,
  work: (value: T) => boolean | Promise<boolean>,
): Promise<number> {
  let count = 0;
  const before = peakBytes();
  const property = fc.asyncProperty(of, async (value) => {
    if (await work(value)) count++;
  });
  const { failed, counterexample, counterexamplePath, errorInstance, numRuns } = await fc.check(property, {
    seed,
    numRuns: runs,
  });
  if (failed) {
    const text = counterexample ? show(counterexample[0]).slice(0, 1500) : '';
    const where = `seed ${seed}, case ${numRuns}, path ${counterexamplePath ?? ''}`;
    throw new Error(`${where}\n${text}`, { cause: errorInstance });
  }
  expect(peakBytes() - before).toBeLessThan(mebibytes * 2 ** 20);
  return count;
}

export const titleOf = (what: string, runs: number): string => `${what}, ${runs} times (seed ${seed})`;
