import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { nearest, UserError } from './diagnostic.js';
import { quoted, shown } from './input-file.js';
import type { Checkpoint } from './weights/checkpoint.js';

/** A model file of this package, and what config.json calls what it computes. */
interface Shelved {
  readonly file: string;
  /** `model_type`, which every config.json has. */
  readonly type: string;
  /** `architectures`, which names the class that was saved. */
  readonly architecture: string;
}

/** The models of `models/`. */
export const shelf: readonly Shelved[] = [
  { file: 'gemma2', type: 'gemma2', architecture: 'Gemma2ForCausalLM' },
  { file: 'gpt2', type: 'gpt2', architecture: 'GPT2LMHeadModel' },
  { file: 'granite', type: 'granite', architecture: 'GraniteForCausalLM' },
  { file: 'llama', type: 'llama', architecture: 'LlamaForCausalLM' },
  { file: 'mistral', type: 'mistral', architecture: 'MistralForCausalLM' },
  { file: 'phi4', type: 'phi3', architecture: 'Phi3ForCausalLM' },
  { file: 'qwen2', type: 'qwen2', architecture: 'Qwen2ForCausalLM' },
  { file: 'qwen3', type: 'qwen3', architecture: 'Qwen3ForCausalLM' },
];

/** The path of a model file of this package, which runs from `src/` or `dist/`. */
export const shelvedFile = (name: string): string =>
  path.join(path.dirname(fileURLToPath(import.meta.url)), '..', 'models', `${name}.graph.ts`);

/**
 * The model file for a checkpoint, by its `architectures`, or its `model_type` where it has none.
 * @throws {UserError} that names the nearest architecture there is, and how to add one
 */
export function modelFileOf({ config, configFile, path: checkpoint }: Checkpoint): string {
  const { architectures, model_type } = config;
  const first: unknown = Array.isArray(architectures) ? architectures[0] : undefined;
  const key = typeof first === 'string' ? 'architecture' : 'type';
  const name = typeof first === 'string' ? first : model_type;
  if (typeof name !== 'string') {
    throw new UserError(`${shown(configFile)} does not say what model it is of`, {
      notes: ['expected architectures or model_type', 'or give a model file: upgc compile MODEL.graph.ts'],
    });
  }
  const found = shelf.find((model) => model[key] === name);
  if (found) return shelvedFile(found.file);
  const known = shelf.map((model) => model[key]);
  const near = nearest(name, known);
  throw new UserError(`there is no model for the architecture ${quoted(name)} of ${shown(checkpoint)}`, {
    notes: [
      ...(near === undefined ? [] : [`the nearest name is ${near}`]),
      `there are models for ${known.join(', ')}`,
      'docs/add-a-model.md shows how to write one; then give its file: upgc compile MODEL.graph.ts',
    ],
  });
}
