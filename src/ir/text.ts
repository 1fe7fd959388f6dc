import { formatSpan } from '../diagnostic.js';
import type { Graph, Node } from './graph.js';
import { isOp } from './graph.js';
import { formatType } from './type.js';
import path from 'node:path';

/** Readable, unique names of the values of a graph: the user's variable where there is one, else the op. */
export function valueNames(nodes: readonly Node[]): Map<Node, string> {
  const names = new Map<Node, string>();
  const counts = new Map<string, number>();
  const taken = new Set<string>();
  for (const node of nodes) {
    if (isOp(node, 'weight')) {
      names.set(node, `@${node.attrs.name}`);
      continue;
    }
    // A table of angles is made by the call that first needs it, whose variable names another value.
    const own = isOp(node, 'rope_table') ? undefined : node.origin.name;
    const base = isOp(node, 'input', 'state') ? node.attrs.name : (own ?? node.op);
    let count = counts.get(base) ?? 0;
    let name = count === 0 ? base : `${base}.${count}`;
    while (taken.has(name)) name = `${base}.${++count}`;
    counts.set(base, count + 1);
    taken.add(name);
    names.set(node, `%${name}`);
  }
  return names;
}

/** `%h = add %x, %o : f32[T, 64]   // llama.graph.ts:22 model.layers.0` */
export function formatNode(node: Node, names: ReadonlyMap<Node, string>): string {
  const operands = node.inputs.map((input) => names.get(input) ?? '?').join(', ');
  const attrs = Object.entries(node.attrs as object)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}: ${JSON.stringify(value)}`);
  const shown = isOp(node, 'weight', 'input', 'state') || attrs.length === 0 ? '' : `{ ${attrs.join(', ')} }`;
  const { span, scope } = node.origin;
  const place = [span ? formatSpan(span, path.dirname(span.file)).replace(/:\d+$/, '') : '', scope].filter(
    Boolean,
  );
  const text = [`${names.get(node) ?? '?'} = ${node.op}`, operands, shown].filter(Boolean).join(' ');
  return `${text} : ${formatType(node.type)}${place.length > 0 ? `   // ${place.join(' ')}` : ''}`;
}

/** The graph as text, one node a line. Weights are named where they are used and not listed. */
export function formatGraph(graph: Graph, entry = graph.name): string {
  const names = valueNames(graph.nodes);
  const nameOf = (node: Node): string => names.get(node) ?? '?';
  const dims = Object.entries(graph.dims).map(([name, length]) => `${name} = ${length}`);
  const lines = graph.nodes
    .filter((node) => node.op !== 'weight')
    .map((node) => `  ${formatNode(node, names)}`);
  const outputs = [...graph.outputs].map(([name, node]) => `${name} = ${nameOf(node)}`);
  const updates = [...graph.updates].map(([state, node]) => `  update ${nameOf(state)} = ${nameOf(node)}`);
  return [
    `graph ${entry}${dims.length > 0 ? ` (${dims.join(', ')})` : ''} {`,
    ...lines,
    ...updates,
    `  return ${outputs.join(', ')}`,
    '}',
    '',
  ].join('\n');
}
