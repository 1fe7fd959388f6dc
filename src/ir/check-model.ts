import { UserError } from '../diagnostic.js';
import { isOp, type Graph, type Node } from './graph.js';
import { formatType } from './type.js';

/** Generation needs the logits of every token. */
export function checkLogits(name: string, logits: Node): void {
  const { dtype, shape } = logits.type;
  if (dtype === 'f32' && shape.length === 2 && shape[0] === 'T' && typeof shape[1] === 'number') return;
  throw new UserError(`model ${name} must return logits f32[T, V], not ${formatType(logits.type)}`, {
    span: logits.origin.span,
  });
}

/** The ids of a step come from the vocabulary, those of an argmax from the axis it searched. */
export function checkTables(graph: Graph): void {
  const vocabulary = graph.outputs.get('logits')?.type.shape[1];
  for (const node of graph.nodes) {
    if (!isOp(node, 'embed')) continue;
    const [ids, table] = node.inputs;
    const source = ids && sourceOf(ids);
    const wanted = source && isOp(source, 'argmax') ? source.inputs[0]?.type.shape.at(-1) : vocabulary;
    const rows = table?.type.shape[0];
    if (typeof rows === 'number' && typeof wanted === 'number' && rows >= wanted) continue;
    throw new UserError(`embed: the table has ${rows} rows; its ids run to ${wanted}`, {
      span: node.origin.span,
      notes: ['the embedding table must have a row for every logit'],
    });
  }
}

function sourceOf(value: Node): Node {
  const [input] = value.inputs;
  return input && isOp(value, 'split', 'reshape', 'last') ? sourceOf(input) : value;
}
