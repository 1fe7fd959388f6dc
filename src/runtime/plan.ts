import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { UserError } from '../diagnostic.js';
import { brief, jsonKind, quoted, shown } from '../input-file.js';

/** The contract between compiler and runtime: plan.json of a build folder. */

export const planVersion = 2;

/** Buffers start at multiples of this many bytes, on every device. */
export const bindingAlignment = 16;

const bytes = z.int().nonnegative();
const count = z.int().positive();
const identifier = z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,254}$/, 'must be an identifier');

/** The device allocations of a plan. `io` holds what the host writes before a step and reads after it. */
export const arenaNames = ['weights', 'state', 'pool', 'io'] as const;

const regionSchema = z.strictObject({
  arena: z.enum(arenaNames),
  offset: bytes.multipleOf(bindingAlignment),
  bytes,
});

/** Thread positions that kernels take, by the name of their MSL attribute. */
export const threadPositions = [
  'threadgroup_position_in_grid',
  'thread_index_in_threadgroup',
  'thread_index_in_simdgroup',
  'simdgroup_index_in_threadgroup',
] as const;

const argumentSchema = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('buffer'),
    name: identifier,
    index: z.int().min(0).max(30),
    /**
     * `read`; `element`: read, but each element only by the thread that then stores the result's element of that place,
     * so that both may be bound to one region; `write`: may be changed, and read too.
     */
    access: z.enum(['read', 'element', 'write']),
    /** The least that may be bound: what the kernel's text may touch. */
    bytes: count,
  }),
  z.strictObject({
    kind: z.literal('threadgroup'),
    name: identifier,
    index: z.int().min(0).max(30),
    bytes: count,
  }),
  z.strictObject({ kind: z.enum(threadPositions), name: identifier }),
]);

const kernelSchema = z.strictObject({
  name: identifier,
  /** Threads of a threadgroup, in one dimension. */
  threads: count.max(1024),
  arguments: z.array(argumentSchema),
});

const dispatchSchema = z.strictObject({
  /** Index into `kernels`. */
  kernel: z.int().nonnegative(),
  /** What it computes, for people. */
  label: z.string(),
  /** Threadgroups per grid. */
  grid: z.tuple([count, count, count]),
  /** Whether everything before must have finished. */
  barrier: z.boolean(),
  /** One per buffer argument, in order. */
  bindings: z.array(regionSchema),
});

/**
 * Runs the step's tokens: reads their ids, appends to the caches. `score` leaves the logits of every token; the others
 * those of the last, draw an id, store it in `inputs.tokens` after the step's, and move `inputs.step` on to it: the next
 * step of `decode` can follow without the host.
 */
const entrySchema = z.strictObject({
  /** Most tokens of one step. */
  tokens: count,
  dispatches: z.array(dispatchSchema),
  /** `optimal`: no placement of the transient buffers needs fewer bytes; proven. */
  pool: z.strictObject({ bytes, lowerBound: bytes, optimal: z.boolean() }),
  /** f32[rows, vocabulary]. */
  outputs: z.strictObject({ logits: regionSchema }),
});

/** Elements one by one, or integers in groups that share a scale (docs/weights.md): `q4g32` has 4 bits, groups of 32. */
const dtypes = [
  'f32',
  'f16',
  'bf16',
  'i32',
  'u16',
  'q8g32',
  'q6g32',
  'q5g32',
  'q5g32b',
  'q4g32',
  'q4g32b',
  'q4g64',
  'q4g64b',
  'q6k',
  'q5k',
  'q4k',
] as const;

const tensorSchema = z.strictObject({
  name: z.string(),
  dtype: z.enum(dtypes),
  shape: z.array(z.int().nonnegative()),
  offset: bytes,
  bytes,
});

/** Keys or values of earlier tokens, a row for each position; a ring has fewer rows and keeps the latest positions. */
const stateSchema = tensorSchema.extend({ ring: z.boolean().default(false) });

const planObject = z.strictObject({
  version: z.literal(planVersion),
  model: z.strictObject({
    name: z.string(),
    vocabulary: count,
    bosToken: z.int().nonnegative().nullable(),
    eosTokens: z.array(z.int().nonnegative()),
  }),
  target: z.enum(['metal', 'cuda', 'cpu']),
  simdWidth: z.union([z.literal(1), z.literal(32)]),
  /** Most tokens of a text. */
  context: count,
  arenas: z.strictObject({
    weights: z.strictObject({
      bytes,
      /** Whether weights.bin lies beside the plan; a build without a checkpoint cannot run. */
      packed: z.boolean(),
    }),
    state: z.strictObject({ bytes }),
    pool: z.strictObject({ bytes }),
    io: z.strictObject({ bytes }),
  }),
  /**
   * Where the host writes before a step: `tokens` i32[context + 1], the ids of the text by position; `step`
   * { uint position; uint tokens }; `sampling` f32[4], temperature, top-k, top-p and min-p; `seed` i32[1].
   */
  inputs: z.strictObject({
    tokens: regionSchema,
    step: regionSchema,
    sampling: regionSchema,
    seed: regionSchema,
  }),
  weights: z.array(tensorSchema),
  state: z.array(stateSchema),
  kernels: z.array(kernelSchema),
  entries: z.strictObject({ decode: entrySchema, prefill: entrySchema, score: entrySchema }),
});

/** What parts of a plan say of each other. The native side checks what bindings and kernels say of memory. */
export const planSchema = planObject.superRefine((plan, check) => {
  const expect = (holds: boolean, path: (string | number)[], message: string): void => {
    if (!holds) check.addIssue({ code: 'custom', path, message });
  };
  expect(
    plan.simdWidth === (plan.target === 'cpu' ? 1 : 32),
    ['simdWidth'],
    `does not fit target ${plan.target}`,
  );
  plan.state.forEach(({ shape, ring }, i) => {
    const [rows = 0] = shape;
    expect(
      ring ? rows > 0 && rows < plan.context : rows === plan.context,
      ['state', i, 'shape'],
      `must hold ${ring ? 'less than ' : ''}the context of ${plan.context} tokens`,
    );
  });
  // The native side checks what kernels are bound to; this is what the host itself reads and writes.
  const expectInIo = ({ arena, offset, bytes }: Region, path: string[]): void => {
    expect(arena === 'io', [...path, 'arena'], 'must be io');
    expect(offset + bytes <= plan.arenas.io.bytes, path, `ends past the ${plan.arenas.io.bytes} bytes of io`);
  };
  for (const [name, entry] of Object.entries(plan.entries)) {
    const rows = name === 'score' ? entry.tokens : 1;
    const logits = rows * plan.model.vocabulary * 4;
    const at = ['entries', name];
    expectInIo(entry.outputs.logits, [...at, 'outputs', 'logits']);
    expect(entry.outputs.logits.bytes === logits, [...at, 'outputs', 'logits', 'bytes'], `must be ${logits}`);
    // A threadgroup that stores nothing is for nothing; a damaged grid of them could run for hours.
    for (const [i, { grid, bindings }] of entry.dispatches.entries()) {
      const bound = bindings.reduce((sum, { bytes }) => sum + bytes, 0);
      const threadgroups = grid.reduce((product, size) => product * size, 1);
      expect(
        threadgroups <= bound,
        [...at, 'dispatches', i, 'grid'],
        `is of more threadgroups than the ${bound} bytes bound`,
      );
    }
    expect(entry.tokens <= plan.context, [...at, 'tokens'], `is more than the context of ${plan.context}`);
  }
  const inputs = Object.entries(plan.inputs);
  for (const [i, [name, region]] of inputs.entries()) {
    expectInIo(region, ['inputs', name]);
    const other = inputs.slice(0, i).find(([, before]) => overlap(before, region));
    expect(!other, ['inputs', name], `overlaps ${other?.[0]}`);
  }
  const inputBytes = { tokens: (plan.context + 1) * 4, step: 8, sampling: 16, seed: 4 };
  for (const [name, bytes] of Object.entries(inputBytes) as [keyof typeof inputBytes, number][]) {
    expect(plan.inputs[name].bytes === bytes, ['inputs', name, 'bytes'], `must be ${bytes}`);
  }
});

const overlap = (a: Region, b: Region): boolean =>
  a.arena === b.arena && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;

export type Plan = z.output<typeof planObject>;
export type PlanEntry = Plan['entries'][EntryName];
export type PlanKernel = Plan['kernels'][number];
export type Region = z.output<typeof regionSchema>;
export type EntryName = keyof Plan['entries'];
/** The entries of a plan, in the order of the program's. */
export const entryNames: readonly EntryName[] = ['decode', 'prefill', 'score'];
export type ArenaName = Region['arena'];

/** The files of a build folder. */
export const buildFiles = { plan: 'plan.json', kernels: 'kernels.metal', weights: 'weights.bin' } as const;

/** Reads and checks the plan of a build folder; throws UserError naming the file and the field. */
export function readPlan(dir: string): Plan {
  const file = shown(path.join(dir, buildFiles.plan));
  const advice = 'compile the model: upgc compile <model.graph.ts> --out DIR';
  let text: string;
  try {
    text = readFileSync(path.join(dir, buildFiles.plan), 'utf8');
  } catch {
    const source = dir.endsWith('.ts');
    throw new UserError(
      existsSync(dir)
        ? `'${dir}' is not a build folder: it has no ${buildFiles.plan}`
        : `there is no folder '${dir}'`,
      {
        notes: [source ? `compile it first: upgc compile ${dir} --out DIR` : advice],
      },
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new UserError(`${file} is not valid JSON: it is damaged or cut short`, { notes: [reason, advice] });
  }
  const version = z.object({ version: z.unknown() }).safeParse(json);
  if (version.success && version.data.version !== planVersion) {
    throw new UserError(
      `${file} is of version ${shownVersion(version.data.version)}; this upgc reads version ${planVersion}`,
      {
        notes: [advice],
      },
    );
  }
  const parsed = planSchema.safeParse(json);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const field = issue?.path.join('.') ?? '';
    const what = brief(issue?.message ?? 'invalid');
    throw new UserError(`${file}: ${field === '' ? 'the plan' : field}: ${what}`, {
      notes: [advice],
    });
  }
  return parsed.data;
}

function shownVersion(version: unknown): string {
  if (typeof version === 'string') return quoted(version);
  return typeof version === 'number' ? String(version) : jsonKind(version);
}
