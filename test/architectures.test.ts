import { copyFileSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { modelFileOf, shelf, shelvedFile } from '../src/architectures.js';
import { loadModel } from '../src/ir/load.js';
import { readPlan } from '../src/runtime/plan.js';
import { openSafetensors } from '../src/weights/safetensors.js';
import { safetensorsBytes } from './support/safetensors.js';
import { renderedError, renderedRejection } from './support/snapshot.js';
import { temporaryFolder } from './support/temporary.js';

const checkpoint = (config: Record<string, unknown>): Parameters<typeof modelFileOf>[0] => ({
  path: 'weights',
  configFile: 'weights/config.json',
  config,
  settingNames: new Map(),
  bosToken: null,
  eosTokens: [],
  tensors: new Map(),
  tokenizerFiles: [],
});

describe('the shelf', () => {
  it('has every model file of models/', () => {
    const files = readdirSync('models').map((file) => path.resolve('models', file));
    expect(shelf.map(({ file }) => path.resolve(shelvedFile(file))).sort()).toEqual(files.sort());
  });

  it('has models whose defaults make a graph, each under 120 lines', () => {
    for (const { file } of shelf) {
      const { name, build } = loadModel(shelvedFile(file));
      expect(name).toBe(file);
      expect(build({ num_hidden_layers: 1, n_layer: 1 }).graph.outputs.has('logits')).toBe(true);
      expect(readFileSync(shelvedFile(file), 'utf8').split('\n').length, file).toBeLessThan(120);
    }
  }, 120_000);

  it('is searched by architecture, then by type', () => {
    const found = (config: Record<string, unknown>): string => path.basename(modelFileOf(checkpoint(config)));
    expect(found({ architectures: ['Phi3ForCausalLM'], model_type: 'phi3' })).toBe('phi4.graph.ts');
    expect(found({ model_type: 'phi3' })).toBe('phi4.graph.ts');
    expect(found({ architectures: [], model_type: 'qwen2' })).toBe('qwen2.graph.ts');
  });

  it('says what there is in place of what there is not', () => {
    const refusal = (config: Record<string, unknown>): string =>
      renderedError(() => modelFileOf(checkpoint(config)), '/no-folder');
    expect([
      refusal({ architectures: ['Qwen4ForCausalLM'] }),
      refusal({ model_type: 'gemma' }),
      refusal({ architectures: ['T5ForConditionalGeneration'], model_type: 'llama' }),
      refusal({}),
    ]).toMatchInlineSnapshot(`
      [
        "error: there is no model for the architecture "Qwen4ForCausalLM" of weights
       note: the nearest name is Qwen2ForCausalLM
       note: there are models for Gemma2ForCausalLM, GPT2LMHeadModel, GraniteForCausalLM, LlamaForCausalLM, MistralForCausalLM, Phi3ForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
       note: docs/add-a-model.md shows how to write one; then give its file: upgc compile MODEL.graph.ts",
        "error: there is no model for the architecture "gemma" of weights
       note: the nearest name is gemma2
       note: there are models for gemma2, gpt2, granite, llama, mistral, phi3, qwen2, qwen3
       note: docs/add-a-model.md shows how to write one; then give its file: upgc compile MODEL.graph.ts",
        "error: there is no model for the architecture "T5ForConditionalGeneration" of weights
       note: there are models for Gemma2ForCausalLM, GPT2LMHeadModel, GraniteForCausalLM, LlamaForCausalLM, MistralForCausalLM, Phi3ForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM
       note: docs/add-a-model.md shows how to write one; then give its file: upgc compile MODEL.graph.ts",
        "error: weights/config.json does not say what model it is of
       note: expected architectures or model_type
       note: or give a model file: upgc compile MODEL.graph.ts",
      ]
    `);
  });
});

describe('compile', () => {
  it('takes the model from the shelf', async () => {
    const out = path.join(temporaryFolder(), 'build');
    await compile({ weights: 'test/fixtures/random-qwen2', out });
    expect(readPlan(out).model.name).toBe('qwen2');
  });

  it('needs a model or weights', async () => {
    expect(await renderedRejection(() => compile({ out: null }), '/no-folder')).toMatchInlineSnapshot(`
      "error: there is neither a model nor weights that say of which model they are
       note: give a model file, MODEL.graph.ts, or --weights, or both"
    `);
  });

  it('takes a checkpoint of the body alone, whose names lack the first part', async () => {
    const dir = temporaryFolder();
    const fixture = 'test/fixtures/random-gpt2';
    copyFileSync(path.join(fixture, 'config.json'), path.join(dir, 'config.json'));
    const file = path.join(fixture, 'model.safetensors');
    const bytes = readFileSync(file);
    const end = 8 + Number(bytes.readBigUInt64LE());
    const header = bytes.toString('utf8', 8, end).replaceAll('"transformer.', '"');
    writeFileSync(path.join(dir, 'model.safetensors'), safetensorsBytes(header, bytes.subarray(end)));
    expect(openSafetensors(path.join(dir, 'model.safetensors')).tensors.has('wte.weight')).toBe(true);
    const [whole, body] = ['whole', 'body'].map((name) => path.join(dir, name));
    await compile({ weights: fixture, out: whole ?? '' });
    await compile({ weights: dir, out: body ?? '' });
    expect(
      readFileSync(`${body}/weights.bin`).equals(readFileSync(`${whole}/weights.bin`)),
      'the same weights',
    ).toBe(true);
  });

  it('refuses a context past the table of positions', async () => {
    const options = { weights: 'test/fixtures/random-gpt2', context: 257, out: null };
    expect(await renderedRejection(() => compile(options), process.cwd())).toMatchInlineSnapshot(`
      "error: the context of 257 tokens is longer than the table of 256 positions
         ┌─ models/gpt2.graph.ts:75:50
      75 │ const embedded = add(embed(tokens(), table), positions(weight('wpe.weight', [c.n_positions, c.n_embd])));
         │                                              ^^^^^^^^^
         note: the longest possible is --context 256"
    `);
  });

  it('refuses by name what a model does not cover', async () => {
    const dir = temporaryFolder();
    const refused = async (fixture: string, changes: Record<string, unknown>): Promise<string> => {
      const config = JSON.parse(readFileSync(`test/fixtures/${fixture}/config.json`, 'utf8')) as object;
      writeFileSync(path.join(dir, 'config.json'), JSON.stringify({ ...config, ...changes }));
      copyFileSync(`test/fixtures/${fixture}/model.safetensors`, path.join(dir, 'model.safetensors'));
      return renderedRejection(() => compile({ weights: dir, out: null }), dir);
    };
    const yarn = { rope_theta: 10000, rope_type: 'yarn', factor: 4 };
    expect([
      await refused('random-qwen2', { hidden_act: 'gelu', rope_parameters: yarn }),
      await refused('random-gpt2', { activation_function: 'relu', scale_attn_by_inverse_layer_idx: true }),
      await refused('random-llama3-rope', { mlp_bias: true }),
    ]).toMatchInlineSnapshot(`
      [
        "error: <dir>/config.json does not fit model qwen2
       note: hidden_act: Invalid input: expected "silu"
       note: rope_parameters.rope_type: Invalid discriminator value. Expected 'default' | 'linear' | 'llama3' | 'longrope'",
        "error: <dir>/config.json does not fit model gpt2
       note: activation_function: Invalid option: expected one of "gelu_new"|"gelu_pytorch_tanh"|"gelu_fast"
       note: scale_attn_by_inverse_layer_idx: Invalid input: expected false",
        "error: <dir>/config.json does not fit model llama
       note: mlp_bias: Invalid input: expected false",
      ]
    `);
  });
});
