import { CompilerBug } from '../diagnostic.js';
import { isLeaf, type Node } from '../ir/graph.js';
import { kernelSources, type Layout } from './access.js';
import { resultsOf, type Kernel } from './entry.js';

/**
 * The length of the longest chain of kernels that leads to each kernel. Kernels of one level do not depend on each
 * other, and none on one of its own or a later level. Throws CompilerBug when something is read that no kernel makes,
 * or kernels need each other.
 */
export function levelsOf(kernels: Iterable<Kernel>, layout: Layout): ReadonlyMap<Kernel, number> {
  const all = [...kernels];
  const maker = new Map(all.flatMap((kernel) => resultsOf(kernel).map((result) => [result, kernel])));
  const readers = new Map<Kernel, Kernel[]>(all.map((kernel) => [kernel, []]));
  const awaited = new Map<Kernel, number>();
  for (const kernel of all) {
    const makers = new Set([...kernelSources(kernel, layout)].flatMap((source) => makerOf(source, maker)));
    for (const made of makers) readers.get(made)?.push(kernel);
    awaited.set(kernel, makers.size);
  }
  const levels = new Map<Kernel, number>();
  let ready = all.filter((kernel) => awaited.get(kernel) === 0);
  for (let level = 0; ready.length > 0; level++) {
    for (const kernel of ready) levels.set(kernel, level);
    ready = ready
      .flatMap((kernel) => readers.get(kernel) ?? [])
      .filter((reader) => {
        const left = (awaited.get(reader) ?? 0) - 1;
        awaited.set(reader, left);
        return left === 0;
      });
  }
  if (levels.size < all.length) throw new CompilerBug('kernels need the results of each other');
  return levels;
}

function makerOf(source: Node, maker: ReadonlyMap<Node, Kernel>): Kernel[] {
  if (isLeaf(source)) return [];
  const made = maker.get(source);
  if (!made) throw new CompilerBug(`${source.op} is read, but no kernel makes it`);
  return [made];
}
