import { isOp, type Graph, type Node } from '../ir/graph.js';
import { GraphReader, parseGraph } from '../ir/parse.js';
import { Scanner, type Token } from '../ir/scan.js';
import {
  kernelKinds,
  type Entry,
  type Kernel,
  type KernelKind,
  type Output,
  type PoolBuffer,
  type PoolPlan,
} from './entry.js';

/**
 * Reads entries as `formatEntry` (src/passes/text.ts) writes them, one after the other; `file` is named in errors. The
 * text of an entry may be that of any stage. That kernels, epochs and buffers are sound is for `verifyEntry` to say.
 * @throws {UserError} that says where the text is wrong and what was expected
 */
export function parseEntries(text: string, file?: string): Entry[] {
  const scanner = new Scanner(text, file);
  const entries: Entry[] = [];
  do entries.push(new EntryReader(scanner).entry());
  while (scanner.peek().kind !== 'end');
  return entries;
}

/** Reads the text of any stage: the model's graph, or its entries. */
export function parseStage(text: string, file?: string): Graph | Entry[] {
  return new Scanner(text, file).at('graph') ? parseGraph(text, file) : parseEntries(text, file);
}

class EntryReader {
  private readonly graph: GraphReader;
  private readonly kernels: Kernel[] = [];
  private readonly epochs = new Map<Kernel, number>();
  private readonly buffers: PoolBuffer[] = [];
  private epoch: number | undefined;
  private poolSize: Omit<PoolPlan, 'buffers'> | undefined;

  constructor(private readonly scanner: Scanner) {
    this.graph = new GraphReader(scanner);
  }

  entry(): Entry {
    const { scanner } = this;
    scanner.expect('entry');
    const name = scanner.name('the name of the entry');
    scanner.expect('of');
    const model = scanner.name('the name of the model');
    const dims = this.graph.dims();
    scanner.expect('{');
    while (!scanner.at('}')) if (!this.graph.statement()) this.statement();
    const end = scanner.take();
    if (this.buffers.length > 0 && !this.poolSize)
      scanner.fail("the pool has buffers and no size: expected 'pool'", end);
    return {
      name,
      graph: this.graph.finish(model, dims, end),
      kernels: this.kernels,
      epochs: this.epochs,
      pool: this.poolSize && { buffers: this.buffers, ...this.poolSize },
    };
  }

  private statement(): void {
    const { scanner } = this;
    if (scanner.accept('kernel')) this.kernel();
    else if (scanner.accept('pool')) this.poolSize = this.pool();
    else if (scanner.at('barrier') || scanner.at('epoch')) {
      scanner.accept('barrier');
      scanner.expect('epoch');
      this.epoch = scanner.count('its number');
    } else scanner.failExpected("a value, 'kernel', 'barrier', 'epoch', 'update', 'return', 'pool' or '}'");
  }

  private kernel(): void {
    const { scanner } = this;
    scanner.expectKind('word', 'the name of the kernel');
    const kind = this.kind();
    scanner.expect('{');
    const nodes = new Set<Node>();
    while (scanner.peek().kind === 'value') nodes.add(this.graph.definition());
    const prologue = scanner.accept('prologue') ? this.graph.use() : undefined;
    const outputs: [Output, ...Output[]] = [this.store()];
    while (scanner.at('store')) outputs.push(this.store());
    scanner.expect('}');
    const kernel: Kernel = { kind, prologue, outputs, nodes };
    this.kernels.push(kernel);
    if (this.epoch !== undefined) this.epochs.set(kernel, this.epoch);
  }

  private kind(): KernelKind {
    const token = this.scanner.expectKind('word', 'the kind of the kernel');
    const kind = kernelKinds.find((each) => each === token.text);
    return kind ?? this.scanner.failUnknown(token, `there is no kind of kernel '${token.text}'`, kernelKinds);
  }

  private store(): Output {
    const { scanner } = this;
    scanner.expect('store');
    const place = scanner.peek();
    const result = this.graph.use();
    const made = scanner.accept('(') ? this.made() : undefined;
    let append: Output['append'];
    if (scanner.accept('to')) {
      if (scanner.at('pool')) this.buffers.push(this.buffer(result));
      else append = this.append(result, place);
    }
    const { anchors = append ? [] : [result], epilogue = [] } = made ?? {};
    return { anchors, epilogue, append, result, border: '' };
  }

  /** `anchors %gate, %up; epilogue %silu, %mul)` */
  private made(): Pick<Output, 'anchors' | 'epilogue'> {
    const { scanner, graph } = this;
    const anchors = scanner.accept('anchors') ? graph.uses() : [];
    if (anchors.length === 0 && !scanner.at('epilogue')) scanner.failExpected("'anchors' or 'epilogue'");
    if (scanner.accept(';') && !scanner.at('epilogue')) scanner.failExpected("'epilogue'");
    const epilogue = scanner.accept('epilogue') ? graph.uses() : [];
    scanner.expect(')');
    return { anchors, epilogue };
  }

  private append(result: Node, place: Token): NonNullable<Output['append']> {
    const cache = this.graph.use("'pool' or a state");
    if (isOp(result, 'cache_append') && result.inputs[0] === cache) return result;
    return this.scanner.fail(`${place.text} is no append to that state`, place);
  }

  /** `pool [0, 256) in epochs 3 to 5` */
  private buffer(value: Node): PoolBuffer {
    const { scanner } = this;
    scanner.expect('pool');
    scanner.expect('[');
    const offset = scanner.count('the first byte');
    scanner.expect(',');
    const place = scanner.peek();
    const end = scanner.count('the byte past the last');
    if (end < offset) scanner.fail(`the buffer ends before byte ${offset}`, place);
    scanner.expect(')');
    scanner.expect('in');
    scanner.expect('epochs');
    const firstEpoch = scanner.count('the first epoch');
    scanner.expect('to');
    const lastEpoch = scanner.count('the last epoch');
    return { value, offset, bytes: end - offset, firstEpoch, lastEpoch };
  }

  /** `1280 bytes, lower bound 1216`, then `, optimal` where that is proven */
  private pool(): Omit<PoolPlan, 'buffers'> {
    const { scanner } = this;
    const bytes = scanner.count('the size of the pool');
    scanner.expect('bytes');
    scanner.expect(',');
    scanner.expect('lower');
    scanner.expect('bound');
    const lowerBound = scanner.count('the lower bound');
    const optimal = scanner.accept(',');
    if (optimal) scanner.expect('optimal');
    return { bytes, lowerBound, optimal };
  }
}
