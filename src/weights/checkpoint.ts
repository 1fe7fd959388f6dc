import { existsSync, readdirSync, statSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { nearest, Unsupported, UserError } from '../diagnostic.js';
import { ioReason, isObject, jsonKind, readJsonObject, shown } from '../input-file.js';
import { openSafetensors, type SafetensorsFile, type TensorEntry } from './safetensors.js';

/** A model folder in the layout of the Hugging Face hub. */
export interface Checkpoint {
  readonly dir: string;
  /**
   * config.json, with `rope_parameters` as transformers 5 writes it whatever version wrote the file: an object that
   * always has `rope_theta` (10000 when the file has none) and `rope_type` (`default` when the file has none).
   */
  readonly config: Record<string, unknown>;
  /** The id that begins a text. */
  readonly bosToken: number | null;
  /** The ids that end a text; any of them. */
  readonly eosTokens: readonly number[];
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  /** Paths of tokenizer.json and tokenizer_config.json, those that exist. */
  readonly tokenizerFiles: readonly string[];
}

const names = {
  config: 'config.json',
  generation: 'generation_config.json',
  weights: 'model.safetensors',
  index: 'model.safetensors.index.json',
  tokenizer: ['tokenizer.json', 'tokenizer_config.json'],
};

/**
 * Opens a checkpoint folder: its configuration and the whereabouts of its tensors. No tensor data is read.
 * @throws {UserError} when the folder or a part of it is missing or damaged
 * @throws {Unsupported} when rope parameters differ between kinds of layers
 */
export function openCheckpoint(dir: string): Checkpoint {
  const listing = listFolder(dir);
  if (!listing.includes(names.config)) {
    throw new UserError(`${shown(dir)} is not a checkpoint folder: it has no ${names.config}`, {
      notes: [
        `expected a Hugging Face model folder: ${names.config}, ${names.weights} and ${names.tokenizer[0]}`,
      ],
    });
  }
  const configFile = path.join(dir, names.config);
  const config = readJsonObject(configFile);
  return {
    dir,
    config: { ...config, rope_parameters: ropeParameters(config, configFile) },
    ...specialTokens(dir, config, listing),
    tensors: openWeights(dir, listing),
    tokenizerFiles: names.tokenizer
      .filter((name) => listing.includes(name))
      .map((name) => path.join(dir, name)),
  };
}

function listFolder(dir: string): string[] {
  try {
    if (!statSync(dir).isDirectory()) {
      throw new UserError(`${shown(dir)} is not a checkpoint folder: it is a file`, {
        notes: [
          `expected a Hugging Face model folder: ${names.config}, ${names.weights} and ${names.tokenizer[0]}`,
        ],
      });
    }
    return readdirSync(dir);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`cannot open checkpoint ${shown(dir)}: ${ioReason(error)}`, {
      notes: ['expected the path of a Hugging Face model folder'],
    });
  }
}

/** Rope types that transformers has renamed. */
const ropeTypeRenames: ReadonlyMap<string, string> = new Map([['su', 'longrope']]);

const ropeSchema = z.looseObject({
  rope_theta: z.number('expected a number').positive('expected a positive number'),
  rope_type: z.string('expected the name of a rope type'),
});

function ropeParameters(config: Record<string, unknown>, file: string): Record<string, unknown> {
  const key = config.rope_parameters == null ? 'rope_scaling' : 'rope_parameters';
  const own = config[key] ?? {};
  if (!isObject(own))
    throw new UserError(`${shown(file)}: ${key} should be an object, found ${jsonKind(own)}`);
  const kinds = Object.keys(own).filter((kind) => isObject(own[kind]));
  if (kinds.length > 0) {
    throw new Unsupported(`${shown(file)}: rope parameters that differ between kinds of layers`, {
      notes: [`${key} has ${kinds.join(', ')}; one set of parameters for all layers is supported`],
    });
  }

  const named = own.rope_type ?? own.type ?? 'default';
  const type = typeof named === 'string' ? (ropeTypeRenames.get(named) ?? named) : named;
  // transformers before version 5 kept these beside `rope_scaling` rather than inside it.
  const outside = ['rope_theta', 'partial_rotary_factor'];
  if (type !== 'default') outside.push('original_max_position_embeddings');
  const merged: Record<string, unknown> = { ...own, rope_type: type };
  for (const name of outside) if (config[name] != null) merged[name] ??= config[name];
  merged.rope_theta ??= 10000;

  const parsed = ropeSchema.safeParse(merged);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new UserError(`${shown(file)}: ${issue?.path.join('.')}: ${issue?.message}`);
  }
  return parsed.data;
}

const tokenId = z.int('expected a token id').min(0, 'expected a token id');
const tokenSchema = z.object({
  bos_token_id: tokenId.nullish(),
  eos_token_id: z.union([tokenId, z.array(tokenId)], 'expected a token id or a list of them').nullish(),
});

/** The ids of config.json; where generation_config.json gives an id, that one holds. */
function specialTokens(
  dir: string,
  config: Record<string, unknown>,
  listing: readonly string[],
): Pick<Checkpoint, 'bosToken' | 'eosTokens'> {
  const read = (name: string, value: Record<string, unknown>) => {
    const parsed = tokenSchema.safeParse(value);
    if (parsed.success) return parsed.data;
    const issue = parsed.error.issues[0];
    throw new UserError(`${shown(path.join(dir, name))}: ${issue?.path.join('.')}: ${issue?.message}`);
  };
  const model = read(names.config, config);
  const generation = listing.includes(names.generation)
    ? read(names.generation, readJsonObject(path.join(dir, names.generation)))
    : {};
  const eos = generation.eos_token_id ?? model.eos_token_id ?? [];
  return {
    bosToken: generation.bos_token_id ?? model.bos_token_id ?? null,
    eosTokens: Array.isArray(eos) ? eos : [eos],
  };
}

function openWeights(dir: string, listing: readonly string[]): ReadonlyMap<string, TensorEntry> {
  if (listing.includes(names.weights)) return openSafetensors(path.join(dir, names.weights)).tensors;
  if (listing.includes(names.index)) return openShards(dir, path.join(dir, names.index));
  const other = listing.filter((name) => /\.(safetensors|bin|pth?|gguf)$/.test(name)).slice(0, 5);
  throw new UserError(`${shown(dir)} has no weights`, {
    notes: [
      `expected ${names.weights}, or ${names.index} with the shards that it names`,
      ...(other.length === 0 ? [] : [`found ${other.join(', ')}, which cannot be used in their place`]),
    ],
  });
}

function openShards(dir: string, indexFile: string): ReadonlyMap<string, TensorEntry> {
  const weightMap = readJsonObject(indexFile).weight_map;
  if (!isObject(weightMap)) {
    throw new UserError(`${shown(indexFile)}: weight_map should be an object, found ${jsonKind(weightMap)}`, {
      notes: ['the file is damaged: download it again'],
    });
  }
  const shards = new Map<string, SafetensorsFile>();
  const tensors = new Map<string, TensorEntry>();
  for (const [name, shardName] of Object.entries(weightMap)) {
    if (typeof shardName !== 'string' || !isPlainFileName(shardName)) {
      throw new UserError(
        `${shown(indexFile)}: tensor ${JSON.stringify(name)}: expected the name of a shard in the same folder, ` +
          `found ${JSON.stringify(shardName)}`,
      );
    }
    const shard = shards.get(shardName) ?? openShard(dir, shardName, indexFile);
    shards.set(shardName, shard);
    const entry = shard.tensors.get(name);
    if (!entry) throw missingTensor(name, shard, indexFile);
    tensors.set(name, entry);
  }
  return tensors;
}

function openShard(dir: string, name: string, indexFile: string): SafetensorsFile {
  const file = path.join(dir, name);
  if (!existsSync(file)) {
    throw new UserError(`missing shard ${shown(file)}`, {
      notes: [
        `${shown(indexFile)} names it`,
        'the download is probably incomplete: download the missing file',
      ],
    });
  }
  return openSafetensors(file);
}

function missingTensor(name: string, shard: SafetensorsFile, indexFile: string): UserError {
  const guess = nearest(name, shard.tensors.keys());
  return new UserError(`missing tensor ${JSON.stringify(name)} in ${shown(shard.file)}`, {
    notes: [
      `${shown(indexFile)} says that it is there`,
      ...(guess === undefined ? [] : [`the nearest name there is ${JSON.stringify(guess)}`]),
      'the index and its shards are from different downloads: download them again',
    ],
  });
}

/** Whether joining `name` to a folder stays in that folder, on any system. */
function isPlainFileName(name: string): boolean {
  return name !== '' && name !== '.' && name !== '..' && !/[/\\:\0]/.test(name);
}
