/** A quantised format of GGML: a row is a whole number of blocks. native/pack/stored.cc decodes them. */
export interface BlockFormat {
  readonly elements: number;
  readonly bytes: number;
}

/** Those that can be read. A Map: names come from files. */
export const blockFormats: ReadonlyMap<string, BlockFormat> = new Map([
  ['Q4_0', { elements: 32, bytes: 18 }],
  ['Q4_1', { elements: 32, bytes: 20 }],
  ['Q5_0', { elements: 32, bytes: 22 }],
  ['Q5_1', { elements: 32, bytes: 24 }],
  ['Q8_0', { elements: 32, bytes: 34 }],
  ['Q4_K', { elements: 256, bytes: 144 }],
  ['Q5_K', { elements: 256, bytes: 176 }],
  ['Q6_K', { elements: 256, bytes: 210 }],
]);
