import { existsSync, readFileSync, statSync } from 'node:fs';
import { totalmem } from 'node:os';
import path from 'node:path';
import { UserError } from '../diagnostic.js';
import { cacheFolder, fromNative, loadAddon, mslHeaders } from './addon.js';
import { createProgram, type Execution } from './execution.js';
import type { NativeAddon, NativeProgram, ProgramSpec } from './native.js';
import {
  arenaNames,
  buildFiles,
  entryNames,
  readPlan,
  type EntryName,
  type Plan,
  type Region,
} from './plan.js';
import { samplingOf, type Sampling, type SamplingOptions } from './sampling.js';
import { openTokenizer, type TextTokenizer } from './tokenizer.js';

export interface OpenOptions {
  /**
   * A device of this build of upgc: `cuda` or `cpu`; `auto`, the default, is the best one that this machine has and that
   * does what else is asked for. `cpu:simt` is the CPU device for builds with simdgroups of 32 lanes only: the text that
   * a GPU gets.
   */
  readonly device?: string;
  /** C++ compiler for the CPU device; by default the first suitable clang on PATH. */
  readonly clang?: string;
  /**
   * For tests: a seed (uint32) for the order of everything that the plan and Metal leave in any order. Results of a
   * correct plan do not depend on it. Slow.
   */
  readonly shuffle?: number;
  /** OS threads that the CPU device runs large kernels on; results do not depend on it. By default 1. */
  readonly threads?: number;
  /**
   * Checks every access of every kernel: one outside its buffers, one that another thread's may race with, or one to
   * threadgroup memory that nothing has written throws UserError. Ten to a hundred times slower.
   */
  readonly sanitize?: boolean;
  /** `whole`, the default, runs a step as one submission; the others show what that saves, and are slow. */
  readonly execution?: Execution;
}

export interface GenerateOptions extends SamplingOptions {
  /** By default as many as the context holds. */
  readonly maxTokens?: number;
  /** Go on after an end-of-sequence token. */
  readonly ignoreEos?: boolean;
  /**
   * Most tokens of one submission, which can only be taken together. By default as many as take 33 ms, so that text
   * flows.
   */
  readonly burst?: number;
}

export interface GeneratedToken {
  readonly id: number;
  /** The text this token completes; empty while a character is unfinished, or without a tokenizer. */
  readonly text: string;
}

export interface SessionStats {
  /** Device allocations since `open` returned. */
  readonly deviceAllocations: number;
  /** Submissions to the device since `open` returned; one may be of many steps. */
  readonly submissions: number;
  readonly dispatchesPerStep: Readonly<Record<EntryName, number>>;
  readonly bytes: { readonly pool: number; readonly state: number; readonly weights: number };
}

/**
 * A compiled plan on a device, and the text so far: its keys and values stay in the device's caches. Everything is
 * allocated by `open`. One call at a time: a second one while the device works throws UserError, and a generator ends
 * when another call has changed the text.
 */
export class Session {
  /** Tokens whose keys and values are in the caches. */
  private position = 0;
  /** Generated tokens that no step has read yet. */
  private pending: number[] = [];
  /** Whether a call waits for the device. */
  private busy = false;
  /** Counts calls that change the text; a generator of an earlier call ends when it goes on. */
  private turn = 0;
  private closed = false;
  private readonly atOpen: { readonly allocations: number; readonly submissions: number };

  private constructor(
    readonly plan: Plan,
    /** Undefined when the build has no tokenizer.json. */
    readonly tokenizer: TextTokenizer | undefined,
    private readonly program: NativeProgram,
    /** The build folder. */
    private readonly dir: string,
  ) {
    this.atOpen = program.stats();
  }

  /**
   * Opens a build folder: checks the plan, compiles or finds the kernels, allocates all device memory.
   * @throws {UserError} when the folder, the plan, the device or the compiler is not as needed
   */
  static async open(dir: string, options: OpenOptions = {}): Promise<Session> {
    const plan = readPlan(dir);
    const spec = programSpec(dir, plan, options);
    const tokenizer = openTokenizer(dir);
    const addon = loadAddon();
    const device = chooseDevice(addon, options, plan);
    try {
      return new Session(
        plan,
        tokenizer,
        await createProgram(addon, device, spec, plan, options.execution),
        dir,
      );
    } catch (error) {
      throw fromNative(error, [`while opening ${dir}`]);
    }
  }

  /**
   * Reads `tokens` after the text so far, then generates, one id at a time. Ends at an end-of-sequence token (which is
   * not yielded), after `maxTokens`, or when the context is full.
   * @throws {UserError} when there is no token to start from, an id is not in the vocabulary, or the context is too short
   */
  async *generate(
    tokens: readonly number[],
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedToken, void> {
    const { maxTokens = Infinity, ignoreEos = false, burst: fixedBurst } = options;
    if (maxTokens < 0 || (maxTokens !== Infinity && !Number.isInteger(maxTokens)))
      throw new UserError(`maxTokens must be a whole number, at least 0, not ${maxTokens}`);
    if (fixedBurst !== undefined && !(Number.isInteger(fixedBurst) && fixedBurst > 0))
      throw new UserError(`burst must be a whole number, at least 1, not ${fixedBurst}`);
    const sampling = samplingOf(options);
    const ends = new Set(ignoreEos ? [] : this.plan.model.eosTokens);
    const text = this.tokenizer?.stream();
    const turn = this.beginTurn();
    this.checkTokens([...this.pending, ...tokens]);
    this.pending.push(...tokens);
    // Whether a first token begins a text, and so loses its leading space, depends on what came before.
    for (const id of this.pending) text?.push(id);
    const fits = (): boolean => this.position + this.pending.length <= this.plan.context;
    // Caches of windowed attention let the text go back by a chunk.
    const mostSteps = Math.min(fixedBurst ?? mostBurst, this.plan.entries.prefill.tokens);
    let burst = Math.min(fixedBurst ?? 1, mostSteps);
    for (let produced = 0; produced < maxTokens && fits();) {
      const started = performance.now();
      const ids = await this.whileBusy(() => this.next(sampling, Math.min(burst, maxTokens - produced)));
      const msPerStep = (performance.now() - started) / ids.length;
      if (fixedBurst === undefined) burst = Math.min(burstAfter(burst, msPerStep), mostSteps);
      const start = this.position;
      for (const [i, id] of ids.entries()) {
        // Steps that ran ahead of what the caller takes are forgotten: the next ones overwrite what they stored.
        this.position = start + i;
        this.pending = [id];
        if (ends.has(id)) return;
        const piece = text?.push(id) ?? '';
        yield { id, text: ++produced < maxTokens && fits() ? piece : piece + (text?.end() ?? '') };
        if (turn !== this.turn) return;
      }
    }
  }

  /**
   * The logits of every position of a text of its own: f32[tokens.length, vocabulary], row-major. Forgets the text so
   * far, and `tokens` afterwards.
   * @throws {UserError} as `generate`
   */
  async score(tokens: readonly number[]): Promise<Float32Array> {
    this.beginScore(tokens);
    const { vocabulary } = this.plan.model;
    const logits = new Float32Array(tokens.length * vocabulary);
    await this.whileBusy(async () => {
      for (let start = 0; start < tokens.length; start = this.position)
        await this.scorePart(tokens, logits.subarray(start * vocabulary));
    });
    this.forget();
    return logits;
  }

  /**
   * As `score`, but as many positions at a time as the device computes at once, so that a long text needs no more
   * memory than a short one: f32[positions, vocabulary], row-major, valid until the next part. Ends when another call
   * has changed the text.
   * @throws {UserError} as `generate`
   */
  async *scoreInParts(tokens: readonly number[]): AsyncGenerator<Float32Array, void> {
    const turn = this.beginScore(tokens);
    const chunk = Math.min(this.plan.entries.score.tokens, tokens.length);
    const logits = new Float32Array(chunk * this.plan.model.vocabulary);
    while (this.position < tokens.length) {
      yield await this.whileBusy(() => this.scorePart(tokens, logits));
      if (turn !== this.turn) return;
    }
    this.forget();
  }

  /**
   * The rows of a state tensor of the plan, as the last step left them.
   * @throws {UserError} when the plan has no such tensor
   */
  readState(name: string): Float32Array {
    this.checkOpen();
    const state = this.plan.state.find((tensor) => tensor.name === name);
    if (!state) throw new UserError(`the plan has no state tensor '${name}'`);
    return this.readRegion({ arena: 'state', ...state }, new Float32Array(state.bytes / 4));
  }

  /** Forgets the text so far. */
  reset(): void {
    this.beginTurn();
    this.forget();
  }

  /** Frees the device memory. Further calls but this one throw UserError. */
  close(): void {
    if (this.closed) return;
    this.beginTurn();
    this.program.close();
    this.closed = true;
  }

  get stats(): SessionStats {
    this.checkOpen();
    const { allocations, submissions } = this.program.stats();
    const { entries, arenas } = this.plan;
    return {
      deviceAllocations: allocations - this.atOpen.allocations,
      submissions: submissions - this.atOpen.submissions,
      dispatchesPerStep: {
        decode: entries.decode.dispatches.length,
        prefill: entries.prefill.dispatches.length,
        score: entries.score.dispatches.length,
      },
      bytes: { pool: arenas.pool.bytes, state: arenas.state.bytes, weights: arenas.weights.bytes },
    };
  }

  private checkOpen(): void {
    if (this.closed) throw new UserError('the session is closed');
  }

  /** Starts a call that changes the text; a generator of an earlier one ends. */
  private beginTurn(): number {
    this.checkOpen();
    if (this.busy) {
      throw new UserError('the session is busy with another call', { notes: ['await that call first'] });
    }
    return ++this.turn;
  }

  private async whileBusy<R>(work: () => Promise<R>): Promise<R> {
    this.checkOpen();
    this.busy = true;
    try {
      return await work();
    } finally {
      this.busy = false;
    }
  }

  private forget(): void {
    this.position = 0;
    this.pending = [];
  }

  /** Starts a text of its own for `tokens`. */
  private beginScore(tokens: readonly number[]): number {
    const turn = this.beginTurn();
    this.forget();
    this.checkTokens(tokens);
    return turn;
  }

  /** Scores the next tokens, as many as one submission takes; returns the part of `into` that has their logits. */
  private async scorePart(tokens: readonly number[], into: Float32Array): Promise<Float32Array> {
    const { tokens: chunk, outputs } = this.plan.entries.score;
    const part = tokens.slice(this.position, this.position + chunk);
    await this.submit('score', part);
    this.position += part.length;
    return this.readRegion(outputs.logits, into.subarray(0, part.length * this.plan.model.vocabulary));
  }

  private checkTokens(tokens: readonly number[]): void {
    const { vocabulary } = this.plan.model;
    if (tokens.length === 0)
      throw new UserError('there is no token to start from', { notes: ['give at least one token id'] });
    const bad = tokens.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
    if (bad !== undefined) throw new UserError(`token ${bad} is not in the vocabulary of ${vocabulary} ids`);
    const needed = this.position + tokens.length;
    if (needed > this.plan.context) {
      const before = this.position > 0 ? `${this.position} tokens so far and ` : '';
      throw new UserError(`${before}${tokens.length} tokens do not fit the context of ${this.plan.context}`, {
        notes: [`shorten the prompt, or compile with --context ${needed} or more`],
      });
    }
  }

  /**
   * Runs the pending tokens through the model and draws the ids that follow: one, or up to `most` when every step reads
   * just the id that the last one drew. Moves `position` on to the first of them.
   */
  private async next(sampling: Sampling, most: number): Promise<Int32Array> {
    this.writeRegion(this.plan.inputs.sampling, sampling.parameters);
    this.writeRegion(this.plan.inputs.seed, sampling.seed);
    const { context, entries } = this.plan;
    if (this.pending.length === 1) {
      const steps = Math.min(most, context - this.position);
      await this.submit('decode', this.pending, steps);
      this.pending = [];
      return this.readIds(++this.position, steps);
    }
    while (this.pending.length > 0) {
      const part = this.pending.slice(0, entries.prefill.tokens);
      await this.submit('prefill', part);
      this.pending.splice(0, part.length);
      this.position += part.length;
    }
    return this.readIds(this.position, 1);
  }

  /** One submission over tokens that follow the text so far, and the `steps` - 1 tokens that follow them. */
  private async submit(entry: EntryName, tokens: readonly number[], steps = 1): Promise<void> {
    const { inputs } = this.plan;
    this.writeRegion(inputs.tokens, Int32Array.from(tokens), this.position);
    this.writeRegion(inputs.step, Uint32Array.of(this.position, tokens.length));
    try {
      await this.program.submit(entryNames.indexOf(entry), steps);
    } catch (error) {
      throw fromNative(error, [`while running ${this.dir}`]);
    }
  }

  /** Ids of the text from a position on. */
  private readIds(position: number, count: number): Int32Array {
    const { arena, offset } = this.plan.inputs.tokens;
    const ids = new Int32Array(count);
    this.program.read(arenaNames.indexOf(arena), offset + position * 4, bytesOf(ids));
    return ids;
  }

  /** Writes 4-byte elements from the `start`-th on. */
  private writeRegion(region: Region, data: Float32Array | Int32Array | Uint32Array, start = 0): void {
    this.program.write(arenaNames.indexOf(region.arena), region.offset + start * 4, bytesOf(data));
  }

  private readRegion<A extends Float32Array | Int32Array>(region: Region, into: A): A {
    this.program.read(arenaNames.indexOf(region.arena), region.offset, bytesOf(into));
    return into;
  }
}

const bytesOf = (data: Float32Array | Int32Array | Uint32Array): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** Decode steps of one submission: as many as take about this long in ms, so that text still flows. */
const burstMs = 33;
const mostBurst = 32;

const burstAfter = (burst: number, msPerStep: number): number =>
  Math.max(1, Math.min(2 * burst, Math.floor(burstMs / msPerStep)));

/** The CPU device, for builds whose simdgroups have more than one lane. */
const simtDevice = 'cpu:simt';

/** Whether only the CPU device does what is asked for. */
const needsCpu = (options: OpenOptions, plan: Plan): boolean =>
  plan.simdWidth === 1 || options.sanitize === true || options.shuffle !== undefined;

function chooseDevice(addon: NativeAddon, options: OpenOptions, plan: Plan): string {
  const wanted = options.device ?? 'auto';
  const devices = addon.devices();
  if (wanted === simtDevice) {
    if (plan.simdWidth > 1) return 'cpu';
    throw new UserError(`${simtDevice} runs simdgroups of 32 lanes; this build's have one`, {
      notes: ['compile with --target metal, or run on the device cpu'],
    });
  }
  // Absent devices say themselves what they miss.
  if (wanted === 'cuda') return wanted;
  const device = wanted === 'auto' ? (needsCpu(options, plan) ? 'cpu' : devices[0]) : wanted;
  if (device !== undefined && devices.includes(device)) return device;
  throw new UserError(`there is no device '${wanted}'`, {
    notes: [`devices of this build of upgc: ${[...devices, simtDevice].join(', ')}`],
  });
}

/** The plan and the files beside it as the native side takes them. */
export function programSpec(dir: string, plan: Plan, options: OpenOptions = {}): ProgramSpec {
  const weights = path.join(dir, buildFiles.weights);
  const kernels = path.join(dir, buildFiles.kernels);
  if (!plan.arenas.weights.packed) {
    throw new UserError(`${dir} was compiled without weights: there is nothing to run`, {
      notes: ['compile with --weights DIR, the folder of a checkpoint'],
    });
  }
  for (const file of [kernels, weights]) {
    if (!existsSync(file)) throw new UserError(`${file} is missing`, { notes: ['compile the model again'] });
  }
  const { state, pool, io } = plan.arenas;
  const needed = state.bytes + pool.bytes + io.bytes;
  if (needed > totalmem()) {
    // Both the caches and the ids of the text grow with the context.
    const ids = plan.inputs.tokens.bytes;
    const perToken = (state.bytes + ids) / plan.context;
    const fits = Math.floor((totalmem() - pool.bytes - io.bytes + ids) / perToken);
    throw new UserError(`${dir} needs ${needed} bytes besides its weights; this machine has ${totalmem()}`, {
      notes: [
        `KV cache ${state.bytes} + pool ${pool.bytes} + io ${io.bytes} = ${needed} bytes at a context of ${plan.context}`,
        fits >= 1
          ? `compile with --context ${Math.min(fits, plan.context)} or less`
          : 'no context fits: the rest is too large alone',
      ],
    });
  }
  const { size } = statSync(weights);
  if (size !== plan.arenas.weights.bytes) {
    throw new UserError(`${weights} has ${size} bytes; the plan expects ${plan.arenas.weights.bytes}`, {
      notes: ['the file is cut short or of another build: compile the model again'],
    });
  }
  return {
    source: readFileSync(kernels, 'utf8'),
    // Constant, so that a build that moves keeps its compiled kernels.
    sourceName: buildFiles.kernels,
    simdWidth: plan.simdWidth,
    kernels: plan.kernels.map(({ name, threads, arguments: list }) => ({
      name,
      threads: [threads, 1, 1],
      arguments: list.map((argument) => ({
        kind: argument.kind,
        name: argument.name,
        index: 'index' in argument ? argument.index : 0,
        bytes: 'bytes' in argument ? argument.bytes : 0,
      })),
    })),
    arenas: arenaNames.map((name) => ({
      name,
      bytes: plan.arenas[name].bytes,
      ...(name === 'weights' ? { file: weights } : {}),
    })),
    entries: entryNames.map((name) => ({
      name,
      dispatches: plan.entries[name].dispatches.map(({ kernel, grid, barrier, bindings }) => ({
        kernel,
        grid,
        barrier,
        bindings: bindings.map(({ arena, offset, bytes }) => ({
          arena: arenaNames.indexOf(arena),
          offset,
          bytes,
        })),
      })),
    })),
    headers: mslHeaders,
    cache: cacheFolder(),
    ...(options.clang === undefined ? {} : { clang: options.clang }),
    ...(options.shuffle === undefined ? {} : { shuffle: options.shuffle }),
    ...(options.threads === undefined ? {} : { threads: options.threads }),
    ...(options.sanitize === undefined ? {} : { sanitize: options.sanitize }),
  };
}
