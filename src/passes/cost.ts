import { bindShape } from '../ir/type.js';
import { nameInputs, type Cost } from '../ir/define.js';
import { isOp, type Graph, type Node } from '../ir/graph.js';
import { ops } from '../ir/ops/index.js';
import { bytesOf } from './size.js';
import type { MachineCost } from './target.js';

/** Operations and reduction length of a node, from its op's record. */
export function costOf(node: Node, { dims }: Graph): Cost {
  const record = ops[node.op];
  const cost = record.cost as (
    inputs: Record<string, readonly number[]>,
    attrs: Node['attrs'],
    shape: readonly number[],
  ) => Cost;
  const shapes = node.inputs.map((input) => bindShape(input.type.shape, dims));
  return cost(nameInputs(record.inputs, shapes), node.attrs, bindShape(node.type.shape, dims));
}

/** µs that it takes to compute `node` in `groups` threadgroups, each doing a `share` of it. */
function timeOf(node: Node, graph: Graph, groups: number, share: number, machine: MachineCost): number {
  return Math.ceil(groups / machine.threadgroups) * ((costOf(node, graph).flops * share) / machine.flops);
}

/** Threadgroups that share a row of a node's result where a kernel computes it by itself. */
const groupsOfRow = (node: Node): number =>
  isOp(node, 'attention_combine') ? Number(node.type.shape[1]) : 1;

/**
 * µs saved when every threadgroup that reads `node` computes its row again, instead of one dispatch computing each row
 * once: a dispatch and the way through memory, less the repeated work.
 */
export function savedByRepeating(node: Node, graph: Graph, tiles: number, machine: MachineCost): number {
  const rows = graph.dims['T'] !== undefined && node.type.shape[0] === 'T' ? graph.dims['T'] : 1;
  const groups = rows * groupsOfRow(node);
  const once = timeOf(node, graph, groups, 1 / groups, machine);
  const repeated = timeOf(node, graph, rows * tiles, 1 / rows, machine);
  return machine.dispatch + (2 * bytesOf(node, graph.dims)) / machine.bytes - (repeated - once);
}
