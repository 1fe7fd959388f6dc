import { UserError } from '../diagnostic.js';
import {
  isLeaf,
  isOp,
  leafKey,
  makeGraph,
  makeNode,
  noOrigin,
  type Graph,
  type Node,
  type Origin,
} from './graph.js';
import { ops, type AttrsOf, type OpName } from './ops/index.js';
import { Scanner, type Token } from './scan.js';
import { layerOfScope, valuesOf } from './text.js';
import { formatType, sameType, storedAs, type Dim, type TensorType } from './type.js';

/**
 * Reads one graph as `formatGraph` (src/ir/text.ts) writes it; `file` is named in errors. Places in the user's file are
 * comments there and are not read back.
 * @throws {UserError} that says where the text is wrong and what was expected
 */
export function parseGraph(text: string, file?: string): Graph {
  const scanner = new Scanner(text, file);
  scanner.expect('graph');
  const graph = new GraphReader(scanner).graph();
  if (scanner.peek().kind !== 'end') scanner.failExpected('the end of the text');
  return graph;
}

function isOpName(name: string): name is OpName {
  return Object.hasOwn(ops, name);
}

/** Reads the statements that make up a graph. */
export class GraphReader {
  private readonly values = new Map<string, Node>();
  private readonly places = new Map<Node, Token>();
  private readonly leaves = new Set<string>();
  private readonly outputs = new Map<string, Node>();
  private readonly updates = new Map<Node<'state'>, Node>();

  constructor(private readonly scanner: Scanner) {}

  /** What follows `graph`. */
  graph(): Graph {
    const { scanner } = this;
    const name = scanner.name('the name of the graph');
    const dims = this.dims();
    scanner.expect('{');
    while (!scanner.at('}'))
      if (!this.statement()) scanner.failExpected("a value, 'update', 'return' or '}'");
    return this.finish(name, dims, scanner.take());
  }

  /** `(T = 1, C = 64)`, which may be missing. */
  dims(): Record<string, number> {
    const dims: Record<string, number> = {};
    if (!this.scanner.accept('(')) return dims;
    do {
      const name = this.namedDim() ?? this.scanner.failExpected('T or C');
      this.scanner.expect('=');
      dims[name] = this.scanner.count(`the length of ${name}`);
    } while (this.scanner.accept(','));
    this.scanner.expect(')');
    return dims;
  }

  /** Reads the statement that comes next; false when it is none of a graph's. */
  statement(): boolean {
    if (this.scanner.peek().kind === 'value') this.definition();
    else if (this.scanner.accept('update')) this.update();
    else if (this.scanner.accept('return')) this.results();
    else return false;
    return true;
  }

  /** A value and how it is computed. */
  definition(): Node {
    const { scanner } = this;
    const place = scanner.take();
    if (this.values.has(place.text)) scanner.fail(`${place.text} is defined twice`, place);
    const node = place.text.startsWith('@') ? this.weight(place) : this.operation(place);
    if (isLeaf(node)) {
      const key = leafKey(node);
      if (this.leaves.has(key)) scanner.fail(`two leaves are called ${key}`, place);
      this.leaves.add(key);
    }
    this.values.set(place.text, node);
    this.places.set(node, place);
    return node;
  }

  /** A value that was defined above. */
  use(what = 'a value'): Node {
    const token = this.scanner.expectKind('value', what);
    return (
      this.values.get(token.text) ??
      this.scanner.failUnknown(token, `there is no ${token.text} above`, this.values.keys())
    );
  }

  /** One value or more, with commas between them. */
  uses(): Node[] {
    const used = [this.use()];
    while (this.scanner.accept(',')) used.push(this.use());
    return used;
  }

  /** The graph that was read; `end` is where errors about the whole of it point. */
  finish(name: string, dims: Record<string, number>, end: Token): Graph {
    if (this.outputs.size === 0) this.scanner.fail(`${name} returns nothing: expected 'return'`, end);
    const graph = makeGraph({ name, outputs: this.outputs, updates: this.updates, dims });
    const needed = new Set(valuesOf(graph));
    for (const [node, place] of this.places) {
      if (!needed.has(node)) this.scanner.fail(`nothing needs ${place.text}`, place);
    }
    return graph;
  }

  private weight(place: Token): Node {
    this.scanner.expect(':');
    const type = this.type();
    const turned = this.scanner.accept('transposed') ? { transposed: true } : {};
    const pruned = this.scanner.accept('pruned') ? { pruned: this.object() } : {};
    const attrs = { name: leafName(place), dtype: type.dtype, shape: type.shape, ...turned, ...pruned };
    return this.make('weight', [], attrs, noOrigin, place);
  }

  private operation(place: Token): Node {
    const { scanner } = this;
    scanner.expect('=');
    const token = scanner.expectKind('word', 'an op');
    const op = token.text;
    if (!isOpName(op)) return scanner.failUnknown(token, `there is no op '${op}'`, Object.keys(ops));
    const inputs = scanner.peek().kind === 'value' ? this.uses() : [];
    this.checkCount(op, inputs.length, token);
    const attrs = scanner.at('{') ? this.attributes(op) : {};
    if (!scanner.accept(':')) scanner.failExpected("':' and a type");
    const typePlace = scanner.peek();
    const type = this.type();
    const origin = ops[op].class === 'leaf' ? noOrigin : this.origin(place, op);
    const declared = op === 'input' || op === 'state' ? { name: leafName(place), ...type, ...attrs } : attrs;
    const node = this.make(op, inputs, declared, origin, token);
    if (!sameType(node.type, type)) {
      scanner.fail(`${place.text} is ${formatType(node.type)}, not ${formatType(type)}`, typePlace);
    }
    return node;
  }

  private checkCount(op: OpName, count: number, token: Token): void {
    const names: readonly string[] = ops[op].inputs;
    const required = names.filter((name) => !name.endsWith('?')).length;
    if (count >= required && count <= names.length) return;
    const takes = names.length === 0 ? 'no values' : names.join(', ');
    this.scanner.fail(`${op} takes ${takes}; here ${count === 1 ? 'is 1' : `are ${count}`}`, token);
  }

  private make(op: OpName, inputs: readonly Node[], attrs: unknown, origin: Origin, place: Token): Node {
    const parsed = ops[op].attrs.safeParse(attrs);
    if (!parsed.success) {
      const wrong = parsed.error.issues.map(({ path, message }) => [...path.map(String), message].join(': '));
      return this.scanner.fail(`${op}: ${wrong.join('; ')}`, place);
    }
    try {
      return makeNode(op, inputs, parsed.data as AttrsOf<OpName>, origin);
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      return this.scanner.fail(`${op}: ${error.message}`, place);
    }
  }

  /** `{ eps: 0.00001 }` */
  private attributes(op: OpName): Record<string, unknown> {
    // What else they have follows from their type.
    const known = op === 'input' || op === 'state' ? ['name'] : Object.keys(ops[op].attrs.shape);
    return this.object((key) => {
      if (!known.includes(key.text)) {
        const has = known.length === 0 ? 'it has none' : `it has ${known.join(', ')}`;
        this.scanner.failUnknown(key, `${op} has no attribute '${key.text}'`, known, [has]);
      }
    });
  }

  private object(check: (key: Token) => void = () => undefined): Record<string, unknown> {
    const { scanner } = this;
    const entries: [string, unknown][] = [];
    scanner.expect('{');
    do {
      check(scanner.peek());
      const name = scanner.name('the name of an attribute');
      scanner.expect(':');
      entries.push([name, this.json()]);
    } while (scanner.accept(','));
    scanner.expect('}');
    return Object.fromEntries(entries);
  }

  private json(): unknown {
    const { scanner } = this;
    if (scanner.at('{')) return this.object();
    if (scanner.accept('[')) {
      const list: unknown[] = [];
      if (scanner.accept(']')) return list;
      do list.push(this.json());
      while (scanner.accept(','));
      scanner.expect(']');
      return list;
    }
    for (const [word, value] of [
      ['true', true],
      ['false', false],
      ['null', null],
    ] as const) {
      if (scanner.accept(word)) return value;
    }
    const { kind, text } = scanner.peek();
    if (kind !== 'number' && kind !== 'string') return scanner.failExpected('a JSON value');
    scanner.take();
    return JSON.parse(text);
  }

  /** `f32[T, 64]` */
  private type(): TensorType {
    const { scanner } = this;
    const token = scanner.expectKind('word', 'a type');
    const dtype = storedAs.find((each) => each === token.text);
    if (!dtype) return scanner.failUnknown(token, `there is no element type '${token.text}'`, storedAs);
    scanner.expect('[');
    const shape: Dim[] = [];
    if (!scanner.at(']')) {
      do shape.push(this.dim());
      while (scanner.accept(','));
    }
    scanner.expect(']');
    return { dtype, shape };
  }

  private dim(): Dim {
    const { scanner } = this;
    if (scanner.peek().kind === 'number') return scanner.count('a length');
    return this.namedDim() ?? scanner.failExpected('a length, T or C');
  }

  private namedDim(): string | undefined {
    return (['T', 'C'] as const).find((name) => this.scanner.accept(name));
  }

  /** `in model.layers.0`, which may be missing, and the name of the value. */
  private origin(place: Token, op: OpName): Origin {
    const { scanner } = this;
    const name = variableName(place, op);
    if (!scanner.accept('in')) return { ...noOrigin, name };
    const scope = scanner.name('a scope');
    let layer = layerOfScope(scope);
    if (scanner.accept('layer'))
      layer = scanner.accept('none') ? undefined : scanner.count("a layer or 'none'");
    return { ...noOrigin, name, scope, layer };
  }

  private update(): void {
    const { scanner } = this;
    const place = scanner.peek();
    const state = this.use('a state');
    if (!isOp(state, 'state')) return scanner.fail(`${place.text} is no state`, place);
    if (this.updates.has(state)) scanner.fail(`${place.text} is updated twice`, place);
    scanner.expect('=');
    const valuePlace = scanner.peek();
    const value = this.use();
    if (!sameType(state.type, value.type)) {
      const types = `${formatType(value.type)}, not ${formatType(state.type)} as ${place.text}`;
      scanner.fail(`${valuePlace.text} is ${types}`, valuePlace);
    }
    this.updates.set(state, value);
  }

  private results(): void {
    const { scanner } = this;
    do {
      const place = scanner.peek();
      const name = scanner.name('the name of an output');
      if (this.outputs.has(name)) scanner.fail(`there are two outputs '${name}'`, place);
      scanner.expect('=');
      this.outputs.set(name, this.use());
    } while (scanner.accept(','));
  }
}

/** The name of a leaf, as it stands after the sigil. */
function leafName({ text }: Token): string {
  const name = text.slice(1);
  return name.startsWith('"') ? (JSON.parse(withoutNumber(name)) as string) : name;
}

/** The variable that a value is named after; undefined when the name is its op's. */
function variableName({ text }: Token, op: OpName): string | undefined {
  const base = withoutNumber(text.slice(1));
  if (base.startsWith('"')) return JSON.parse(base) as string;
  return base === op ? undefined : base;
}

/** A name without the number that tells it from others: `h` of `h.1`. */
function withoutNumber(name: string): string {
  return name.replace(/(?<!^)\.\d+$/, '');
}
