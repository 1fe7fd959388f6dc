import path from 'node:path';
import { nearest, UserError } from '../diagnostic.js';
import { isOp, type Graph } from '../ir/graph.js';
import { formatType, type DType } from '../ir/type.js';
import { blockFormats } from './blocks.js';
import type { Checkpoint, TensorEntry } from './stored.js';

const weightDtypes: ReadonlyMap<string, DType> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
  ['U16', 'u16'],
]);

/** The element type kernels read a stored tensor as; undefined when they cannot. Quantised blocks become f32. */
export function weightDtype(stored: TensorEntry | undefined): DType | undefined {
  return stored && (blockFormats.has(stored.dtype) ? 'f32' : weightDtypes.get(stored.dtype));
}

/** Every weight of the graph must be in the checkpoint, of the same shape and an element type that kernels read. */
export function checkWeights(graph: Graph, checkpoint: Checkpoint): void {
  for (const node of graph.nodes) {
    if (!isOp(node, 'weight')) continue;
    const { name, shape, transposed } = node.attrs;
    const detail = { span: node.origin.span, within: node.origin.scope || undefined };
    const stored = checkpoint.tensors.get(name);
    if (!stored) {
      const near = nearest(name, checkpoint.tensors.keys());
      throw new UserError(`weight '${name}' is not in the checkpoint ${checkpoint.path}`, {
        ...detail,
        notes: [
          near
            ? `did you mean '${near}'?`
            : `the checkpoint has ${checkpoint.tensors.size} tensors, none of a name like it`,
        ],
      });
    }
    const expected = transposed ? shape.toReversed() : shape;
    if (stored.shape.join() !== expected.join()) {
      throw new UserError(
        `weight '${name}' is [${stored.shape.join(', ')}] in the checkpoint; the model expects ${formatType({ ...node.type, shape: expected })}`,
        {
          ...detail,
          notes: [
            placeOf(stored, name),
            `the model takes its sizes from ${path.basename(checkpoint.configFile)}, and its own defaults where that has none`,
          ],
        },
      );
    }
    if (stored.columnsFirst && !transposed) {
      throw new UserError(`weight '${name}' is stored the other way round`, {
        ...detail,
        notes: [placeOf(stored, name), 'write weight(…, { transposed: true })'],
      });
    }
    if (!weightDtype(stored)) {
      throw new UserError(`weight '${name}' is stored as ${stored.dtype}; weights can be F32, F16 or BF16`, {
        ...detail,
        notes: [placeOf(stored, name)],
      });
    }
  }
  checkUnused(graph, checkpoint);
}

function placeOf(stored: TensorEntry, name: string): string {
  const own = stored.name === name ? '' : `, by the name of '${stored.name}'`;
  return `the tensor is in ${stored.file}${own}`;
}

/** Tensors that implementations store although they can be computed. */
const derived = /(^|\.)(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)$/;

/** A tensor that the graph leaves out is a part of the model that would silently be missing. */
function checkUnused(graph: Graph, checkpoint: Checkpoint): void {
  const used = new Set(graph.nodes.map((node) => (isOp(node, 'weight') ? node.attrs.name : '')));
  const tied = checkpoint.config['tie_word_embeddings'] === true;
  const unused = [...checkpoint.tensors.keys()].filter(
    (name) => !used.has(name) && !derived.test(name) && !(tied && name === 'lm_head.weight'),
  );
  const [first] = unused;
  if (first === undefined) return;
  const others = unused.length > 1 ? ` and ${unused.length - 1} more tensors` : '';
  throw new UserError(
    `model ${graph.name} does not use '${first}'${others} of the checkpoint ${checkpoint.path}`,
    {
      notes: ['the checkpoint is of another architecture, or the model lacks a part, such as a bias'],
    },
  );
}

/** A checkpoint of a model's body alone names its tensors without the first part, `prefix`; here they get it. */
export function withPrefix(checkpoint: Checkpoint, prefix: string | undefined): Checkpoint {
  const names = [...checkpoint.tensors.keys()];
  if (prefix === undefined || names.some((name) => name.startsWith(`${prefix}.`))) return checkpoint;
  const tensors = new Map([...checkpoint.tensors].map(([name, entry]) => [`${prefix}.${name}`, entry]));
  return { ...checkpoint, tensors };
}
