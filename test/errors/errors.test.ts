import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { renderedRejection } from '../support/snapshot.js';
import { openSafetensors } from '../../src/weights/safetensors.js';
import { sharedFolder, temporaryFolder } from '../support/temporary.js';

/** What a user sees for each mistake. Read these as a user: what is wrong, where, what was expected, what to do. */

const weights = 'examples/stories260k';
let goodBuild: string;

beforeAll(async () => {
  goodBuild = path.join(sharedFolder(), 'build');
  await compile({ model: 'models/llama.graph.ts', weights, target: 'cpu', out: goodBuild });
});

/** The llama model with one piece of its text replaced, in a folder of its own. */
function changedModel(dir: string, from: string, to: string): string {
  const text = readFileSync('models/llama.graph.ts', 'utf8');
  expect(text).toContain(from);
  const file = path.join(dir, 'llama.graph.ts');
  writeFileSync(file, text.replace(from, to));
  return file;
}

const compileError = (dir: string, model: string, checkpoint = weights): Promise<string> =>
  renderedRejection(
    () => compile({ model, weights: checkpoint, target: 'cpu', out: path.join(dir, 'build') }),
    dir,
  );

async function firstToken(
  dir: string,
  options: { device?: string; clang?: string; tokens?: number[] },
): Promise<number | undefined> {
  const session = await Session.open(dir, options);
  try {
    let first: number | undefined;
    for await (const { id } of session.generate(options.tokens ?? [1], { maxTokens: 1, greedy: true }))
      first = id;
    return first;
  } finally {
    session.close();
  }
}

/** A copy of the stories260k checkpoint whose tensors are changed by `change`. */
function changedCheckpoint(dir: string, change: (bytes: Buffer) => Uint8Array): string {
  const copy = path.join(dir, 'checkpoint');
  cpSync(weights, copy, { recursive: true });
  const file = path.join(copy, 'model.safetensors');
  writeFileSync(file, change(readFileSync(file)));
  return copy;
}

it('wrong shape between ops', async () => {
  const dir = temporaryFolder();
  const model = changedModel(
    dir,
    'weight(`${name}.weight`, [c.hidden_size])',
    'weight(`${name}.weight`, [c.hidden_size + 1])',
  );
  expect(await compileError(dir, model)).toMatchSnapshot();
});

it('wrong shape in the checkpoint', async () => {
  const dir = temporaryFolder();
  const model = changedModel(
    dir,
    "weight('model.embed_tokens.weight', [c.vocab_size,",
    "weight('model.embed_tokens.weight', [c.vocab_size + 8,",
  );
  expect(await compileError(dir, model)).toMatchSnapshot();
});

it('type error in the model file', async () => {
  const dir = temporaryFolder();
  expect(
    await compileError(dir, changedModel(dir, '{ eps: c.rms_norm_eps }', '{ epsilon: c.rms_norm_eps }')),
  ).toMatchSnapshot();
});

it('unknown weight', async () => {
  const dir = temporaryFolder();
  expect(
    await compileError(dir, changedModel(dir, 'self_attn.o_proj.weight', 'self_attn.o_prj.weight')),
  ).toMatchSnapshot();
});

it('tensor that the index lists but its shard lacks', async () => {
  const dir = temporaryFolder();
  const copy = changedCheckpoint(dir, (bytes) => bytes);
  const file = path.join(copy, 'model.safetensors');
  const { tensors } = openSafetensors(file);
  const shard = 'model-00001-of-00001.safetensors';
  cpSync(file, path.join(copy, shard));
  const names = [...tensors.keys(), 'model.layers.5.mlp.down_proj.weight'];
  writeFileSync(
    path.join(copy, 'model.safetensors.index.json'),
    JSON.stringify({ weight_map: Object.fromEntries(names.map((name) => [name, shard])) }),
  );
  rmSync(file);
  expect(await compileError(dir, 'models/llama.graph.ts', copy)).toMatchSnapshot();
});

it('wrong dtype', async () => {
  const dir = temporaryFolder();
  const copy = changedCheckpoint(dir, (bytes) => {
    const text = bytes.toString('latin1');
    // Same size, other type.
    return Buffer.from(
      text.replace('"model.norm.weight":{"dtype":"F32"', '"model.norm.weight":{"dtype":"I32"'),
      'latin1',
    );
  });
  expect(readFileSync(path.join(copy, 'model.safetensors'), 'latin1')).toContain('"dtype":"I32"');
  expect(await compileError(dir, 'models/llama.graph.ts', copy)).toMatchSnapshot();
});

it('corrupt safetensors header', async () => {
  const dir = temporaryFolder();
  const copy = changedCheckpoint(dir, (bytes) => {
    bytes.write('{{', 8);
    return bytes;
  });
  expect(await compileError(dir, 'models/llama.graph.ts', copy)).toMatchSnapshot();
});

it('config.json that the model does not cover', async () => {
  const dir = temporaryFolder();
  const copy = changedCheckpoint(dir, (bytes) => bytes);
  const file = path.join(copy, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
  writeFileSync(file, JSON.stringify({ ...config, hidden_act: 'relu', num_hidden_layers: 'five' }));
  expect(await compileError(dir, 'models/llama.graph.ts', copy)).toMatchSnapshot();
});

it('truncated plan.json', async () => {
  const dir = temporaryFolder();
  cpSync(goodBuild, dir, { recursive: true });
  truncateSync(path.join(dir, 'plan.json'), 1000);
  expect(await renderedRejection(() => firstToken(dir, {}), dir)).toMatchSnapshot();
});

it('plan whose offset is out of range', async () => {
  const dir = temporaryFolder();
  cpSync(goodBuild, dir, { recursive: true });
  const file = path.join(dir, 'plan.json');
  const plan = JSON.parse(readFileSync(file, 'utf8')) as {
    entries: { decode: { dispatches: { bindings: { offset: number }[] }[] } };
  };
  const binding = plan.entries.decode.dispatches[1]?.bindings[0];
  expect(binding).toBeDefined();
  if (binding) binding.offset = 2 ** 40;
  writeFileSync(file, JSON.stringify(plan));
  expect(await renderedRejection(() => firstToken(dir, {}), dir)).toMatchSnapshot();
});

it('weights.bin cut short', async () => {
  const dir = temporaryFolder();
  cpSync(goodBuild, dir, { recursive: true });
  truncateSync(path.join(dir, 'weights.bin'), 4096);
  expect(await renderedRejection(() => firstToken(dir, {}), dir)).toMatchSnapshot();
});

it('missing clang', async () => {
  const dir = temporaryFolder();
  expect(
    await renderedRejection(() => firstToken(goodBuild, { clang: path.join(dir, 'clang++') }), dir).then(
      (text) => text.replaceAll(goodBuild, '<build>'),
    ),
  ).toMatchSnapshot();
});

it('unknown device', async () => {
  expect(
    await renderedRejection(() => firstToken(goodBuild, { device: 'tpu' }), goodBuild),
  ).toMatchSnapshot();
});

it('prompt longer than the context', async () => {
  const tokens = Array.from({ length: 513 }, () => 5);
  expect(await renderedRejection(() => firstToken(goodBuild, { tokens }), goodBuild)).toMatchSnapshot();
});

it('token outside the vocabulary', async () => {
  expect(
    await renderedRejection(() => firstToken(goodBuild, { tokens: [512] }), goodBuild),
  ).toMatchSnapshot();
});

it('build without weights', async () => {
  const dir = temporaryFolder();
  await compile({ model: 'models/llama.graph.ts', target: 'cpu', context: 16, out: dir });
  expect(await renderedRejection(() => firstToken(dir, {}), dir)).toMatchSnapshot();
});

it('session used twice at once, and after close', async () => {
  const session = await Session.open(goodBuild);
  const running = session.score([1, 2, 3]);
  expect(await renderedRejection(() => session.score([1]), goodBuild)).toMatchSnapshot('busy');
  await running;
  session.close();
  session.close();
  expect(await renderedRejection(() => session.score([1]), goodBuild)).toMatchSnapshot('closed');
});
