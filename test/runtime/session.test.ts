import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  add,
  attention,
  embed,
  linear,
  mergeHeads,
  scale,
  splitHeads,
  tokens,
  weight,
  type Tensor,
} from 'upgc';
import { compile } from 'upgc/compiler';
import { Session, type GenerateOptions } from 'upgc/runtime';
import { sharedFolder } from '../support/temporary.js';
import { tiny, writeCheckpoint } from '../support/tiny.js';

/** Where generation begins, ends and goes on. */

const context = 48;

/** What comes next depends on all tokens so far, so that a text that goes on from the wrong place shows. */
const source = tiny((): Tensor => {
  const table = weight('table', [23, 8]);
  const x = embed(tokens(), table);
  const heads = splitHeads(linear(x, weight('mix', [8, 8])), 2);
  const mixed = mergeHeads(attention(heads, heads, heads, { causal: true }));
  return linear(add(scale(x, { by: 0.25 }), mixed), weight('head', [23, 8]));
});

async function open(name: string, config: object = {}): Promise<Session> {
  const dir = path.join(sharedFolder(), name);
  mkdirSync(dir);
  writeCheckpoint(dir, source);
  writeFileSync(path.join(dir, 'config.json'), JSON.stringify(config));
  const out = path.join(dir, 'build');
  await compile({ model: source, weights: dir, target: 'cpu', context, out });
  return Session.open(out);
}

async function generated(
  session: Session,
  prompt: readonly number[],
  options: GenerateOptions = {},
): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of session.generate(prompt, { temperature: 3, seed: 7, ...options })) ids.push(id);
  return ids;
}

const prompt = [1, 5, 3, 10];
let free: Session;
/** All that the context holds: the last id is drawn, but not read. */
let ids: readonly number[];

beforeAll(async () => {
  free = await open('free');
  ids = await generated(free, prompt);
});

afterAll(() => free.close());

it('fills the context', () => {
  expect(ids).toHaveLength(context - prompt.length + 1);
  expect(new Set(ids).size).toBeGreaterThan(10);
});

describe('an end-of-sequence id', () => {
  it('ends the text and is not yielded, or is ignored on demand', async () => {
    // One that first comes after several steps of one submission.
    const before = ids.findIndex((id, i) => i > 8 && !ids.slice(0, i).includes(id));
    expect(before).toBeGreaterThan(8);
    const session = await open('ending', { eos_token_id: [ids[before]] });
    expect(await generated(session, prompt)).toEqual(ids.slice(0, before));
    session.reset();
    expect(await generated(session, prompt, { ignoreEos: true })).toEqual(ids);
    session.close();
  });
});

describe('a generator that is left', () => {
  it.each([1, 2, 7, 20])('after %i ids goes on with what it drew last, whatever ran ahead', async (taken) => {
    free.reset();
    const first: number[] = [];
    for await (const { id } of free.generate(prompt, { temperature: 3, seed: 7 }))
      if (first.push(id) === taken) break;
    expect(first).toEqual(ids.slice(0, taken));
    expect(await generated(free, [])).toEqual(ids.slice(taken));
  });
});

it('reads a text in several calls as it does in one', async () => {
  free.reset();
  const drawn = await generated(free, prompt, { maxTokens: 3 });
  const after = await generated(free, [2, 2, 19], { maxTokens: 8 });
  free.reset();
  expect(await generated(free, [...prompt, ...drawn, 2, 2, 19], { maxTokens: 8 })).toEqual(after);
});

describe('the context', () => {
  const text = Array.from({ length: context + 1 }, (_, i) => i % 23);

  it('takes a prompt of its length, for one more id', async () => {
    free.reset();
    expect(await generated(free, text.slice(0, context))).toHaveLength(1);
    expect((await free.score(text.slice(0, context))).length).toBe(context * 23);
  });

  it('refuses a token more', async () => {
    free.reset();
    const message = `${context + 1} tokens do not fit the context of ${context}`;
    await expect(generated(free, text)).rejects.toThrow(message);
    await expect(free.score(text)).rejects.toThrow(message);
  });
});
