import path from 'node:path';
import { formatSpan } from '../diagnostic.js';
import { isLeaf, isOp, type Graph, type Node, type Origin } from './graph.js';
import { ops } from './ops/index.js';
import { formatType } from './type.js';

/**
 * The textual form of a graph, which src/ir/parse.ts reads back. In it
 *
 *     graph  = 'graph' name [dims] '{' { leaf | value | update } return '}'
 *     dims   = '(' name '=' length { ',' name '=' length } ')'
 *     leaf   = '@weight' ':' type ['transposed'] ['pruned' attributes] | '%input = input' ':' type | '%state = state' ':' type
 *     value  = '%value' '=' op [value { ',' value }] [attributes] ':' type ['in' scope ['layer' (index | 'none')]]
 *     update = 'update' state '=' value
 *     return = 'return' name '=' value { ',' name '=' value }
 *
 * attributes are JSON with plain keys, and what follows `//` says where in the user's file a value comes from. A name
 * that is not plain stands in quotes. A value is called by its variable, or by its op when it has none, with a number
 * when that is taken: `%h`, `%linear.3`. A variable called like its op stands in quotes.
 */

const plainName = /^[\p{ID_Start}$_][\p{ID_Continue}$.-]*$/u;
const plainVariable = /^[\p{ID_Start}$_][\p{ID_Continue}$]*$/u;
const plainLeaf = /^[\p{ID_Continue}$.-]+$/u;

const quoted = (name: string, plain: RegExp): string => (plain.test(name) ? name : JSON.stringify(name));

/** The name of a graph, a scope, a dim or an output. */
export function formatName(name: string): string {
  return quoted(name, plainName);
}

/** Readable, unique names of the values of a graph. Leaves have theirs first. */
export function valueNames(nodes: readonly Node[]): Map<Node, string> {
  const names = new Map<Node, string>();
  const counts = new Map<string, number>();
  const taken = new Set<string>();
  const leavesFirst = [...nodes.filter(isLeaf), ...nodes.filter((node) => !isLeaf(node))];
  for (const node of leavesFirst) {
    if (isOp(node, 'weight')) {
      names.set(node, `@${quoted(node.attrs.name, plainLeaf)}`);
      continue;
    }
    const base = baseName(node);
    let count = counts.get(base) ?? 0;
    let name = count === 0 ? base : `${base}.${count}`;
    while (taken.has(name)) name = `${base}.${++count}`;
    counts.set(base, count + 1);
    taken.add(name);
    names.set(node, `%${name}`);
  }
  return names;
}

function baseName(node: Node): string {
  if (isOp(node, 'input', 'state')) return quoted(node.attrs.name, plainLeaf);
  const { op } = node;
  // A table of angles is made by the call that first needs it, whose variable names another value.
  const own = isOp(node, 'rope_table') ? undefined : node.origin.name;
  if (own === undefined) return op;
  return own === op ? JSON.stringify(own) : quoted(own, plainVariable);
}

/** `%h = add %x, %o : f32[T, 64] in model.layers.0   // llama.graph.ts:22` */
export function formatNode(node: Node, names: ReadonlyMap<Node, string>): string {
  const name = names.get(node) ?? '?';
  const operands = node.inputs.map((input) => names.get(input) ?? '?').join(', ');
  const computed = ['=', node.op, operands, formatAttributes(node, name)].filter(Boolean).join(' ');
  const { span } = node.origin;
  return [
    name,
    isOp(node, 'weight') ? '' : ` ${computed}`,
    ` : ${formatType(node.type)}`,
    isOp(node, 'weight') && node.attrs.transposed ? ' transposed' : '',
    isOp(node, 'weight') && node.attrs.pruned ? ` pruned ${formatObject(node.attrs.pruned)}` : '',
    isLeaf(node) ? '' : formatScope(node.origin),
    span ? `   // ${formatSpan(span, path.dirname(span.file)).replace(/:\d+$/, '')}` : '',
  ].join('');
}

/** `{ theta: 10000, dims: 8 }` in the order of the op's record; without what the name and the type of a leaf say. */
function formatAttributes(node: Node, name: string): string {
  const attrs = Object.entries(node.attrs as object);
  const valueOf = new Map<string, unknown>(attrs.filter(([, value]) => value !== undefined));
  let shown = Object.keys(ops[node.op].attrs.shape).filter((key) => valueOf.has(key));
  if (isOp(node, 'weight', 'input', 'state')) shown = name === `%${baseName(node)}` ? [] : ['name'];
  if (isOp(node, 'weight') || shown.length === 0) return '';
  return formatObject(Object.fromEntries(shown.map((key) => [key, valueOf.get(key)])));
}

function formatObject(values: object): string {
  const entries = Object.entries(values).map(([key, value]) => `${key}: ${formatJson(value)}`);
  return `{ ${entries.join(', ')} }`;
}

function formatJson(value: unknown): string {
  return Object.is(value, -0) ? '-0' : JSON.stringify(value);
}

/** The layer that a scope is in, as `layers()` names scopes; said only where it is another one. */
export function layerOfScope(scope: string): number | undefined {
  const index = scope.split('.').find((part) => /^\d+$/.test(part));
  return index === undefined ? undefined : Number(index);
}

function formatScope({ scope, layer }: Origin): string {
  const exception = layer === layerOfScope(scope) ? '' : ` layer ${layer ?? 'none'}`;
  return scope === '' && exception === '' ? '' : ` in ${formatName(scope)}${exception}`;
}

/** The leaves of a graph, one a line: inputs, states, tables, then weights. */
export function formatLeaves(graph: Graph, names: ReadonlyMap<Node, string>): string[] {
  const leaves = valuesOf(graph).filter(isLeaf);
  return (['input', 'state', 'rope_table', 'weight'] as const).flatMap((op) =>
    leaves.filter((leaf) => leaf.op === op).map((leaf) => formatNode(leaf, names)),
  );
}

/** What a graph gives: new values of its states, and its outputs. */
export function formatResults(graph: Graph, names: ReadonlyMap<Node, string>): string[] {
  const nameOf = (node: Node): string => names.get(node) ?? '?';
  const outputs = [...graph.outputs].map(([name, node]) => `${formatName(name)} = ${nameOf(node)}`);
  const updates = [...graph.updates].map(([state, node]) => `update ${nameOf(state)} = ${nameOf(node)}`);
  return [...updates, `return ${outputs.join(', ')}`];
}

/** ` (T = 1, C = 64)`, or nothing when no dim has a length yet. */
export function formatDims({ dims }: Graph): string {
  const lengths = Object.entries(dims).map(([name, length]) => `${formatName(name)} = ${length}`);
  return lengths.length > 0 ? ` (${lengths.join(', ')})` : '';
}

/** The values of a graph; a state that nothing reads is one, too. */
export function valuesOf(graph: Graph): readonly Node[] {
  return [...new Set([...graph.nodes, ...graph.updates.keys()])];
}

/** Lines of a body in its braces. */
export function formatBlock(head: string, lines: readonly string[]): string {
  return [`${head} {`, ...lines.map((line) => `  ${line}`), '}', ''].join('\n');
}

/** The graph as text, one value a line, leaves first. */
export function formatGraph(graph: Graph): string {
  return formatBlock(`graph ${formatName(graph.name)}${formatDims(graph)}`, formatGraphBody(graph));
}

export function formatGraphBody(graph: Graph): string[] {
  const names = valueNames(valuesOf(graph));
  const computed = graph.nodes.filter((node) => !isLeaf(node)).map((node) => formatNode(node, names));
  return [...formatLeaves(graph, names), ...computed, ...formatResults(graph, names)];
}
