/** What a checkpoint is, whatever its format. Formats say where things lie; nobody but the packer reads tensor data. */

/** Where a tensor lies on disk, and how: `bytes` raw bytes of the format `dtype`. */
export interface TensorEntry {
  /** As the file spells it. */
  readonly name: string;
  /** As the file spells it: `F32`, `F16`, `BF16`, `I64`, `Q4_K`, … */
  readonly dtype: string;
  /** Row-major; `[]` is a scalar. */
  readonly shape: readonly number[];
  readonly file: string;
  /** Of the first element, in bytes from the beginning of the file. */
  readonly offset: number;
  /** The tensor's size in the file, in bytes. */
  readonly bytes: number;
  /**
   * When rows lie in another order than the model's: the rows of one attention head, of which the file interleaves the
   * halves (row i, then row i + headRows / 2), as rotating neighbours wants them.
   */
  readonly headRows?: number;
  /** Whether a matrix lies column by column: row-major, the file has its transpose. Only `readTransposed` reads such. */
  readonly columnsFirst?: boolean;
}

/** A file of the tokenizer that belongs into the build folder. */
export interface TokenizerFile {
  readonly name: 'tokenizer.json' | 'tokenizer_config.json';
  readonly read: () => Uint8Array;
}

/** An opened checkpoint: its configuration and the whereabouts of its tensors. */
export interface Checkpoint {
  /** The folder or the file that was given. */
  readonly path: string;
  /** The file that the configuration comes from. */
  readonly configFile: string;
  /**
   * In the terms of config.json, with `rope_parameters` as transformers 5 writes it whatever wrote the file: an object
   * that always has `rope_theta` (10000 when the file has none) and `rope_type` (`default` when the file has none).
   */
  readonly config: Record<string, unknown>;
  /** What the file calls a setting, where that is not its path in `config`, such as `rope_parameters.rope_theta`. */
  readonly settingNames: ReadonlyMap<string, string>;
  /** The id that begins a text. */
  readonly bosToken: number | null;
  /** The ids that end a text; any of them. */
  readonly eosTokens: readonly number[];
  /** By the names that Hugging Face gives them. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly tokenizerFiles: readonly TokenizerFile[];
}
