/** What `import … from 'upgc'` gives: the language to write models in, and the types of what it makes. */
export {
  add,
  argmax,
  attention,
  depth,
  embed,
  gelu,
  last,
  layerNorm,
  layers,
  linear,
  mergeHeads,
  model,
  mul,
  positions,
  reshape,
  rmsNorm,
  rope,
  scale,
  scope,
  silu,
  size,
  softmax,
  sparseLinear,
  split,
  splitHeads,
  tanh,
  tokens,
  weight,
  z,
} from './ir/dsl.js';
export type { Model, ModelOptions, RopeOptions, Tensor } from './ir/dsl.js';
export { ropeOptions, ropeParameters } from './ir/rope-parameters.js';
export type { RopeParameters } from './ir/rope-parameters.js';
export type { Dim, DType, TensorType } from './ir/type.js';
export { CompilerBug, renderError, Unsupported, UserError } from './diagnostic.js';
