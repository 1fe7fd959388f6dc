import { Unsupported, UserError } from '../diagnostic.js';
import { quoted, shown } from '../input-file.js';
import { openGguf, type GgufFile } from './gguf.js';
import { Metadata, metadataTypes } from './gguf-metadata.js';
import { specialTokens, tokenizerFiles } from './gguf-tokenizer.js';
import { readTensor } from './read.js';
import type { Checkpoint, TensorEntry } from './stored.js';

const { count, positive, size, text } = metadataTypes;

/** How llama.cpp stores a model of one architecture, and what Hugging Face calls it. */
interface Architecture {
  readonly modelType: string;
  readonly className: string;
  /** Names of tensors within a layer, without `.weight` and `.bias`. */
  readonly layer: Readonly<Record<string, string>>;
  /** Whether the rows of q and k were permuted, so that rotation turns neighbours instead of halves. */
  readonly interleaved: boolean;
  /** Whether part of a head may stay unrotated. */
  readonly partialRotary: boolean;
  /** The first part of the names of layers; `model.layers` by default. */
  readonly layers?: string;
  /** Names of tensors outside of layers, where they are not the usual ones. */
  readonly outer?: Readonly<Record<string, string>>;
  /** Layer matrices that Hugging Face stores as [in, out], and llama.cpp like all others as [out, in]. */
  readonly turned?: readonly string[];
  /** Settings besides the usual ones, or in their place; and what the file calls them. */
  readonly settings?: (read: ReadSettings) => Record<string, unknown>;
  readonly names?: Readonly<Record<string, string>>;
}

interface ReadSettings {
  readonly metadata: Metadata;
  readonly key: (end: string) => string;
  readonly hidden: number;
  readonly heads: number;
  readonly headSize: number;
  readonly layers: number;
}

const outerNames: Readonly<Record<string, string>> = {
  token_embd: 'model.embed_tokens',
  output_norm: 'model.norm',
  output: 'lm_head',
};

const separateLayer = {
  attn_norm: 'input_layernorm',
  attn_q: 'self_attn.q_proj',
  attn_k: 'self_attn.k_proj',
  attn_v: 'self_attn.v_proj',
  attn_output: 'self_attn.o_proj',
  ffn_norm: 'post_attention_layernorm',
  ffn_gate: 'mlp.gate_proj',
  ffn_up: 'mlp.up_proj',
  ffn_down: 'mlp.down_proj',
};

/** Gate and up are one tensor, the gate's half first. */
const fusedLayer = {
  attn_norm: 'input_layernorm',
  attn_qkv: 'self_attn.qkv_proj',
  attn_output: 'self_attn.o_proj',
  ffn_norm: 'post_attention_layernorm',
  ffn_up: 'mlp.gate_up_proj',
  ffn_down: 'mlp.down_proj',
};

const gemma2Layer = {
  ...separateLayer,
  post_attention_norm: 'post_attention_layernorm',
  ffn_norm: 'pre_feedforward_layernorm',
  post_ffw_norm: 'post_feedforward_layernorm',
};

const gpt2Layer = {
  attn_norm: 'ln_1',
  attn_qkv: 'attn.c_attn',
  attn_output: 'attn.c_proj',
  ffn_norm: 'ln_2',
  ffn_up: 'mlp.c_fc',
  ffn_down: 'mlp.c_proj',
};

/** Of Gemma 2 27B, whose scores alone are scaled by the heads' share of the width; no file says so. */
const gemma2LargeLayers = 46;

function gemma2Settings({
  metadata,
  key,
  hidden,
  heads,
  headSize,
  layers,
}: ReadSettings): Record<string, unknown> {
  return {
    hidden_activation: 'gelu_pytorch_tanh',
    head_dim: headSize,
    query_pre_attn_scalar: layers === gemma2LargeLayers ? hidden / heads : headSize,
    attn_logit_softcapping: metadata.get(key('attn_logit_softcapping'), positive) ?? 50,
    final_logit_softcapping: metadata.get(key('final_logit_softcapping'), positive) ?? 30,
    sliding_window: metadata.get(key('attention.sliding_window'), count) ?? 4096,
    // Norms are stored with the 1 that Hugging Face leaves out.
    norm_offset: 0,
  };
}

function gpt2Settings({ metadata, key, hidden, heads, layers }: ReadSettings): Record<string, unknown> {
  return {
    n_embd: hidden,
    n_layer: layers,
    n_head: heads,
    n_inner: metadata.need(key('feed_forward_length'), count),
    n_positions: metadata.need(key('context_length'), count),
    layer_norm_epsilon: metadata.need(key('attention.layer_norm_epsilon'), positive),
  };
}

/** By the name in `general.architecture`. A Map: names come from files. */
const architectures: ReadonlyMap<string, Architecture> = new Map<string, Architecture>([
  [
    'llama',
    {
      modelType: 'llama',
      className: 'LlamaForCausalLM',
      layer: separateLayer,
      interleaved: true,
      partialRotary: false,
    },
  ],
  [
    'phi3',
    {
      modelType: 'phi3',
      className: 'Phi3ForCausalLM',
      layer: fusedLayer,
      interleaved: false,
      partialRotary: true,
    },
  ],
  [
    'qwen2',
    {
      modelType: 'qwen2',
      className: 'Qwen2ForCausalLM',
      layer: separateLayer,
      interleaved: false,
      partialRotary: false,
    },
  ],
  [
    'gemma2',
    {
      modelType: 'gemma2',
      className: 'Gemma2ForCausalLM',
      layer: gemma2Layer,
      interleaved: false,
      partialRotary: false,
      settings: gemma2Settings,
      names: {
        attn_logit_softcapping: 'attn_logit_softcapping',
        final_logit_softcapping: 'final_logit_softcapping',
      },
    },
  ],
  [
    'gpt2',
    {
      modelType: 'gpt2',
      className: 'GPT2LMHeadModel',
      layer: gpt2Layer,
      interleaved: false,
      partialRotary: false,
      layers: 'transformer.h',
      outer: {
        token_embd: 'transformer.wte',
        position_embd: 'transformer.wpe',
        output_norm: 'transformer.ln_f',
        output: 'lm_head',
      },
      turned: ['attn_qkv', 'attn_output', 'ffn_up', 'ffn_down'],
      settings: gpt2Settings,
      names: {
        n_embd: 'embedding_length',
        n_layer: 'block_count',
        n_head: 'attention.head_count',
        n_inner: 'feed_forward_length',
        n_positions: 'context_length',
        layer_norm_epsilon: 'attention.layer_norm_epsilon',
      },
    },
  ],
]);

/** Tensors that Hugging Face keeps in config.json. */
const ropeTensors = {
  frequencies: 'rope_freqs.weight',
  long: 'rope_factors_long.weight',
  short: 'rope_factors_short.weight',
};

/**
 * Opens a GGUF file: its metadata as config.json would have it, its tensors by their Hugging Face names.
 * @throws {UserError} when the file is damaged, or its metadata and tensors do not fit each other
 * @throws {Unsupported} for an architecture, a tokenizer, a tensor type or a setting that cannot be read
 */
export function openGgufCheckpoint(file: string): Checkpoint {
  return ggufCheckpoint(wholeGguf(openGguf(file)));
}

/** Far above the number of files that anybody cuts a model into. */
const mostParts = 1024;

/** The model whose first file or other part this is: the metadata of the first, and the tensors of all. */
function wholeGguf(gguf: GgufFile): GgufFile {
  const parts = partsOf(gguf);
  if (parts === 1) return gguf;
  const [, start = '', own] = /^(.*)-(\d{5})-of-\d{5}\.gguf$/.exec(gguf.file) ?? [];
  const nameOf = (part: number): string =>
    `${start}-${String(part).padStart(5, '0')}-of-${String(parts).padStart(5, '0')}.gguf`;
  if (gguf.file !== nameOf(Number(own)) || parts > mostParts) {
    throw new UserError(`${shown(gguf.file)} is one part of ${parts}, and not named as one`, {
      notes: [
        `expected NAME-00001-of-${String(parts).padStart(5, '0')}.gguf, with the other parts beside it`,
      ],
    });
  }
  const opened = Array.from({ length: parts }, (_, i) =>
    nameOf(i + 1) === gguf.file ? gguf : openGguf(nameOf(i + 1)),
  );
  const tensors = new Map<string, TensorEntry>();
  for (const [number, part] of opened.entries()) {
    const metadata = new Metadata(part);
    if (partsOf(part) !== parts)
      throw metadata.wrong('split.count', `expected ${parts}, as in ${shown(gguf.file)}`);
    if (metadata.get('split.no', size) !== number) throw metadata.wrong('split.no', `expected ${number}`);
    for (const entry of part.tensors.values()) {
      if (tensors.has(entry.name)) throw twice(part.file, entry.name, entry.name);
      tensors.set(entry.name, entry);
    }
  }
  return { file: gguf.file, metadata: opened[0]?.metadata ?? gguf.metadata, tensors };
}

const partsOf = (gguf: GgufFile): number => Math.max(1, new Metadata(gguf).get('split.count', size) ?? 1);

/** As `openGgufCheckpoint`, of a header that has been read. */
export function ggufCheckpoint(gguf: GgufFile): Checkpoint {
  const { file } = gguf;
  const metadata = new Metadata(gguf);
  const name = metadata.need('general.architecture', text);
  const architecture = architectures.get(name);
  if (!architecture) {
    throw new Unsupported(`${shown(file)}: models of the architecture ${quoted(name)}`, {
      notes: [
        `GGUF files can be of ${[...architectures.keys()].join(', ')}`,
        'other models: give the folder of their Hugging Face checkpoint',
      ],
    });
  }
  const settings = readSettings(name, architecture, metadata, gguf);
  return {
    path: file,
    configFile: file,
    config: settings.config,
    settingNames: settings.names,
    ...specialTokens(metadata),
    tensors: renamed(gguf, name, architecture, metadata),
    tokenizerFiles: tokenizerFiles(metadata),
  };
}

interface Settings {
  readonly config: Record<string, unknown>;
  readonly names: ReadonlyMap<string, string>;
}

function readSettings(
  name: string,
  architecture: Architecture,
  metadata: Metadata,
  gguf: GgufFile,
): Settings {
  const key = (end: string): string => `${name}.${end}`;
  refuseExperts(key('expert_count'), metadata);
  checkLayers(key('block_count'), metadata, gguf);
  const heads = metadata.need(key('attention.head_count'), count);
  const hidden = metadata.need(key('embedding_length'), count);
  const layers = metadata.need(key('block_count'), count);
  const headSize = headSizeOf(key, metadata, hidden / heads);
  const table = gguf.tensors.get('token_embd.weight');
  const window = metadata.get(key('attention.sliding_window'), size) ?? 0;
  const config: Record<string, unknown> = {
    model_type: architecture.modelType,
    architectures: [architecture.className],
    vocab_size: metadata.get(key('vocab_size'), count) ?? table?.shape[0],
    hidden_size: hidden,
    intermediate_size: metadata.need(key('feed_forward_length'), count),
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: metadata.get(key('attention.head_count_kv'), count) ?? heads,
    ...(headSize === hidden / heads ? {} : { head_dim: headSize }),
    max_position_embeddings: metadata.need(key('context_length'), count),
    ...(architecture.modelType === 'gpt2'
      ? {}
      : { rms_norm_eps: metadata.need(key('attention.layer_norm_rms_epsilon'), positive) }),
    hidden_act: 'silu',
    sliding_window: window === 0 ? null : window,
    tie_word_embeddings: !gguf.tensors.has('output.weight'),
    rope_parameters: ropeParameters(key, architecture, metadata, gguf, headSize),
    ...architecture.settings?.({ metadata, key, hidden, heads, headSize, layers }),
  };
  const names = {
    vocab_size: 'vocab_size',
    hidden_size: 'embedding_length',
    intermediate_size: 'feed_forward_length',
    num_hidden_layers: 'block_count',
    num_attention_heads: 'attention.head_count',
    num_key_value_heads: 'attention.head_count_kv',
    head_dim: 'attention.key_length',
    max_position_embeddings: 'context_length',
    rms_norm_eps: 'attention.layer_norm_rms_epsilon',
    sliding_window: 'attention.sliding_window',
    'rope_parameters.rope_theta': 'rope.freq_base',
    'rope_parameters.rope_type': 'rope.scaling.type',
    'rope_parameters.factor': 'rope.scaling.factor',
    'rope_parameters.original_max_position_embeddings': 'rope.scaling.original_context_length',
    'rope_parameters.partial_rotary_factor': 'rope.dimension_count',
    ...architecture.names,
  };
  return {
    config,
    names: new Map(Object.entries(names).map(([setting, end]) => [setting, key(end)])),
  };
}

function refuseExperts(key: string, metadata: Metadata): void {
  const experts = metadata.get(key, size) ?? 0;
  if (experts === 0) return;
  throw new Unsupported(`${shown(metadata.file)}: a mixture of ${experts} experts`, {
    notes: [`metadata ${quoted(key)} is ${experts}`],
  });
}

/** A file that claims more layers than it has would be built with all of them before the first is missed. */
function checkLayers(key: string, metadata: Metadata, { tensors }: GgufFile): void {
  const layers = metadata.need(key, count);
  const found = new Set([...tensors.keys()].map((name) => /^blk\.(\d+)\./.exec(name)?.[1]));
  found.delete(undefined);
  if (found.size !== layers)
    throw metadata.wrong(key, `${layers} layers, but there are tensors of ${found.size}`);
}

function headSizeOf(key: (end: string) => string, metadata: Metadata, usual: number): number {
  const headSize = metadata.get(key('attention.key_length'), count) ?? usual;
  const values = metadata.get(key('attention.value_length'), count) ?? headSize;
  if (values === headSize) return headSize;
  throw new Unsupported(`${shown(metadata.file)}: heads whose keys and values differ in size`, {
    notes: [`metadata ${quoted(key('attention.value_length'))} is ${values}; keys have ${headSize}`],
  });
}

/** The largest head that factors are read for. */
const maxHeadSize = 65536;

function ropeParameters(
  key: (end: string) => string,
  architecture: Architecture,
  metadata: Metadata,
  gguf: GgufFile,
  headSize: number,
): Record<string, unknown> {
  const rotated = metadata.get(key('rope.dimension_count'), count) ?? headSize;
  if (rotated !== headSize && !(architecture.partialRotary && rotated < headSize)) {
    throw metadata.wrong(key('rope.dimension_count'), `${rotated}, but a head has ${headSize} elements`);
  }
  const theta = metadata.get(key('rope.freq_base'), positive) ?? 10000;
  return {
    rope_theta: theta,
    ...(architecture.partialRotary ? { partial_rotary_factor: rotated / headSize } : {}),
    ...ropeScaling(key, metadata, gguf, { theta, rotated }),
  };
}

function ropeScaling(
  key: (end: string) => string,
  metadata: Metadata,
  gguf: GgufFile,
  { theta, rotated }: { readonly theta: number; readonly rotated: number },
): Record<string, unknown> {
  const { frequencies, long, short } = ropeTensors;
  const divisors = ropeFactors(gguf, frequencies, rotated);
  if (divisors) return llama3Scaling(gguf, divisors, theta);
  const original = (): number => metadata.need(key('rope.scaling.original_context_length'), count);
  const longFactors = ropeFactors(gguf, long, rotated);
  const shortFactors = ropeFactors(gguf, short, rotated);
  if (longFactors && shortFactors) {
    return {
      rope_type: 'longrope',
      long_factor: longFactors,
      short_factor: shortFactors,
      original_max_position_embeddings: original(),
    };
  }
  const type = metadata.get(key('rope.scaling.type'), text) ?? 'none';
  if (type === 'none') return { rope_type: 'default' };
  const factor = metadata.get(key('rope.scaling.factor'), positive);
  if (type !== 'yarn') return { rope_type: type, factor };
  return { rope_type: type, factor, original_max_position_embeddings: original() };
}

/** A tensor of one factor for every pair that is rotated. */
function ropeFactors({ file, tensors }: GgufFile, name: string, rotated: number): number[] | undefined {
  const entry = tensors.get(name);
  if (!entry) return undefined;
  if (rotated <= maxHeadSize && entry.dtype === 'F32' && entry.shape.join() === String(rotated / 2)) {
    return [...readTensor(entry)];
  }
  throw new UserError(
    `${shown(file)}: tensor ${quoted(name)} is ${entry.dtype}[${entry.shape.join(', ')}]; expected F32[${rotated / 2}]`,
  );
}

/** What Llama 3.1 and later have; files hold only the factors that follow from it, and `factor` differs. */
const llama3 = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };

/** The settings of which the divisors of the frequencies are the result. */
function llama3Scaling(
  { file }: GgufFile,
  divisors: readonly number[],
  theta: number,
): Record<string, unknown> {
  const factor = Math.max(...divisors);
  const fits = divisors.every((divisor, i) => {
    const wavelength = 2 * Math.PI * theta ** (i / divisors.length);
    const {
      low_freq_factor: low,
      high_freq_factor: high,
      original_max_position_embeddings: original,
    } = llama3;
    const smooth = Math.min(1, Math.max(0, (original / wavelength - low) / (high - low)));
    return Math.abs(divisor * ((1 - smooth) / factor + smooth) - 1) < 1e-4;
  });
  if (fits) return { rope_type: 'llama3', factor, ...llama3 };
  throw new Unsupported(`${shown(file)}: rotation with a factor of its own for every frequency`, {
    notes: [`the factors of tensor ${quoted(ropeTensors.frequencies)} are not those of Llama 3`],
  });
}

/** The tensors by the names that Hugging Face gives them; those without one keep their own. */
function renamed(
  { tensors }: GgufFile,
  architectureName: string,
  architecture: Architecture,
  metadata: Metadata,
): ReadonlyMap<string, TensorEntry> {
  const result = new Map<string, TensorEntry>();
  const add = (name: string, entry: TensorEntry): void => {
    if (result.has(name)) throw twice(metadata.file, name, entry.name);
    result.set(name, entry);
  };
  for (const entry of tensors.values()) {
    const [, layer, stem = '', kind = ''] =
      /^(?:blk\.(\d{1,6})\.)?([a-z_]+)(\.weight|\.bias)$/.exec(entry.name) ?? [];
    const table = layer === undefined ? (architecture.outer ?? outerNames) : architecture.layer;
    const name = Object.hasOwn(table, stem) ? table[stem] : undefined;
    if (name === undefined) {
      if (!Object.values(ropeTensors).includes(entry.name)) add(entry.name, entry);
      continue;
    }
    const within = `${architecture.layers ?? 'model.layers'}.${Number(layer)}`;
    const whole = layer === undefined ? `${name}${kind}` : `${within}.${name}${kind}`;
    const turned = layer !== undefined && kind === '.weight' && architecture.turned?.includes(stem);
    if (turned) add(whole, { ...entry, shape: entry.shape.toReversed(), columnsFirst: true });
    else add(whole, architecture.interleaved ? withHeads(entry, stem, architectureName, metadata) : entry);
  }
  return result;
}

/** Marks the projections whose rows are to be put in order: q by its heads, k by those of keys and values. */
function withHeads(entry: TensorEntry, stem: string, architecture: string, metadata: Metadata): TensorEntry {
  if (stem !== 'attn_q' && stem !== 'attn_k') return entry;
  const queryKey = `${architecture}.attention.head_count`;
  const keyKey = `${architecture}.attention.head_count_kv`;
  const queries = metadata.need(queryKey, count);
  const heads = stem === 'attn_q' ? queries : (metadata.get(keyKey, count) ?? queries);
  const rows = entry.shape[0] ?? 1;
  const headRows = rows / heads;
  if (headRows % 2 !== 0) {
    throw metadata.wrong(
      stem === 'attn_q' ? queryKey : keyKey,
      `${heads} heads cannot share the ${rows} rows of tensor ${quoted(entry.name)} in pairs`,
    );
  }
  return { ...entry, headRows };
}

function twice(file: string, name: string, own: string): UserError {
  return new UserError(`${shown(file)}: two tensors are ${quoted(name)}`, {
    notes: [`one of them is ${quoted(own)}`],
  });
}
