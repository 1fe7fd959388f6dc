import type { Access } from '../passes/access.js';
import { rowStart, sum } from './expression.js';
import { anchorOf, nameOf, operand, type Site, type Written } from './site.js';
import { reductionsOf } from './write-rows.js';

/** The kernel of the next id also ends the step: it stores the id where the next step reads it, and moves the position on. */
export function writeSample(site: Site): Written {
  const { kernel, layout, target, list, iteration } = site;
  const node = anchorOf(kernel, 'sample');
  const logits = operand(node, 0);
  const width = Number(logits.type.shape[1]);
  const threads = Math.min(target.scanThreads, Math.ceil(width / target.simdWidth) * target.simdWidth);
  const pointer = (name: string, access: Access, dtype: 'f32' | 'i32'): string =>
    sum(list.read(name, access.source, dtype), rowStart(access, iteration));
  const x = pointer('x', layout.of(logits), 'f32');
  const sampling = pointer('sampling', layout.of(operand(node, 3)), 'f32');
  const seed = pointer('seed', layout.of(operand(node, 4)), 'i32');
  const ids = list.write('ids', kernel.outputs[0].result, 'i32');
  list.endOfStep();
  list.position('thread_index_in_threadgroup');
  const { sum: total, max } = reductionsOf(site, threads);
  return {
    name: nameOf('sample', width),
    doc: `Draws the next of ${width} ids, stores it after the tokens so far and ends the step`,
    context: {
      x,
      sampling,
      seed,
      ids,
      width,
      threads,
      batch: threads > 1 ? 8 : 1,
      greatest: max('most'),
      count: total('own'),
      best: max('best'),
      winner: max(`best == highest ? -float(index) : -${width}.0f`),
    },
    threads,
    tiles: 1,
  };
}
