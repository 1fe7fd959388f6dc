import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { nearest, Unsupported, UserError } from '../diagnostic.js';
import { brief, ioReason, isObject, jsonKind, quoted, readJsonObject, shown } from '../input-file.js';
import { looksLikeGguf } from './gguf.js';
import { openGgufCheckpoint } from './gguf-checkpoint.js';
import { openSafetensors, type SafetensorsFile } from './safetensors.js';
import type { Checkpoint, TensorEntry } from './stored.js';

export type { Checkpoint } from './stored.js';

const names = {
  config: 'config.json',
  generation: 'generation_config.json',
  weights: 'model.safetensors',
  index: 'model.safetensors.index.json',
  tokenizer: ['tokenizer.json', 'tokenizer_config.json'],
} as const;

/**
 * Opens a checkpoint: a folder in the layout of the Hugging Face hub, or a GGUF file. No tensor data is read.
 * @throws {UserError} when the checkpoint or a part of it is missing or damaged
 * @throws {Unsupported} for what no model here can have
 */
export function openCheckpoint(place: string): Checkpoint {
  const gguf = isFile(place) && (place.endsWith('.gguf') || looksLikeGguf(place));
  return gguf ? openGgufCheckpoint(place) : openFolder(place);
}

function isFile(place: string): boolean {
  return statSync(place, { throwIfNoEntry: false })?.isFile() ?? false;
}

const expected = `expected a Hugging Face model folder (${names.config}, ${names.weights} and ${names.tokenizer[0]}) or a GGUF file`;

function openFolder(dir: string): Checkpoint {
  const listing = listFolder(dir);
  if (!listing.includes(names.config)) {
    throw new UserError(`${shown(dir)} is not a checkpoint folder: it has no ${names.config}`, {
      notes: [expected, ...ggufAdvice(dir, listing)],
    });
  }
  const configFile = path.join(dir, names.config);
  const config = readJsonObject(configFile);
  return {
    path: dir,
    configFile,
    config: { ...config, rope_parameters: ropeParameters(config, configFile) },
    settingNames: new Map(),
    ...specialTokens(dir, config, listing),
    tensors: openWeights(dir, listing),
    tokenizerFiles: names.tokenizer
      .filter((name) => listing.includes(name))
      .map((name) => ({ name, read: () => readFileSync(path.join(dir, name)) })),
  };
}

function ggufAdvice(dir: string, listing: readonly string[]): string[] {
  const gguf = listing.find((name) => name.endsWith('.gguf'));
  return gguf === undefined ? [] : [`--weights ${shown(path.join(dir, gguf))} reads that file`];
}

function listFolder(dir: string): string[] {
  try {
    if (!statSync(dir).isDirectory()) {
      throw new UserError(`${shown(dir)} is not a checkpoint folder: it is a file`, {
        notes: [expected],
      });
    }
    return readdirSync(dir);
  } catch (error) {
    if (error instanceof UserError) throw error;
    throw new UserError(`cannot open checkpoint ${shown(dir)}: ${ioReason(error)}`, {
      notes: ['expected the path of a Hugging Face model folder or a GGUF file'],
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
      notes: [
        `${key} has ${brief(kinds.map(quoted).join(', '))}; one set of parameters for all layers is supported`,
      ],
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
  const other = listing.filter((name) => /\.(safetensors|bin|pth?)$/.test(name)).slice(0, 5);
  throw new UserError(`${shown(dir)} has no weights`, {
    notes: [
      `expected ${names.weights}, or ${names.index} with the shards that it names`,
      ...(other.length === 0 ? [] : [`found ${other.join(', ')}, which cannot be used in their place`]),
      ...ggufAdvice(dir, listing),
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
        `${shown(indexFile)}: tensor ${quoted(name)}: expected the name of a shard in the same folder, ` +
          `found ${typeof shardName === 'string' ? quoted(shardName) : jsonKind(shardName)}`,
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
  return new UserError(`missing tensor ${quoted(name)} in ${shown(shard.file)}`, {
    notes: [
      `${shown(indexFile)} says that it is there`,
      ...(guess === undefined ? [] : [`the nearest name there is ${quoted(guess)}`]),
      'the index and its shards are from different downloads: download them again',
    ],
  });
}

/** Whether joining `name` to a folder stays in that folder, on any system, and the name can be shown. */
function isPlainFileName(name: string): boolean {
  return name !== '.' && name !== '..' && /^[^/\\:\p{Cc}\p{Cs}\u2028\u2029]{1,255}$/u.test(name);
}
