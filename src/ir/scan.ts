import { nearest, UserError } from '../diagnostic.js';

/** What a piece of text can be. A `value` is a name with its sigil; a `mark` is punctuation. */
export type TokenKind = 'value' | 'word' | 'number' | 'string' | 'mark' | 'end';

export interface Token {
  readonly kind: TokenKind;
  readonly text: string;
  /** Where it begins, in characters of the whole text. */
  readonly offset: number;
}

const string = /"(?:[^"\\\p{Cc}]|[\x7f-\x9f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/u.source;

const patterns: readonly (readonly [TokenKind, RegExp])[] = [
  ['value', new RegExp(`[%@](?:${string}(?:\\.\\d+)?|[\\p{ID_Continue}$.-]+)`, 'uy')],
  ['word', /[\p{ID_Start}$_][\p{ID_Continue}$.-]*/uy],
  ['number', /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/uy],
  ['string', new RegExp(string, 'uy')],
  ['mark', /[=:;,{}()[\]]/uy],
];

const blank = /(?:\s|\/\/[^\n]*)*/uy;

/** Takes a text apart token by token. Space and comments only separate. */
export class Scanner {
  private current: Token;
  private end = 0;

  /** `file` is named in errors. */
  constructor(
    private readonly text: string,
    private readonly file = '<text>',
  ) {
    this.current = this.scan();
  }

  /** The token that comes next. */
  peek(): Token {
    return this.current;
  }

  take(): Token {
    const token = this.current;
    this.current = this.scan();
    return token;
  }

  /** Whether the next token is this word or mark. */
  at(text: string): boolean {
    return this.current.text === text && (this.current.kind === 'word' || this.current.kind === 'mark');
  }

  /** Takes the next token if it is this word or mark. */
  accept(text: string): boolean {
    if (!this.at(text)) return false;
    this.take();
    return true;
  }

  expect(text: string): Token {
    return this.at(text) ? this.take() : this.failExpected(`'${text}'`);
  }

  expectKind(kind: TokenKind, what: string): Token {
    return this.current.kind === kind ? this.take() : this.failExpected(what);
  }

  /** A name as `formatName` writes it. */
  name(what: string): string {
    const { kind, text } = this.current;
    if (kind !== 'word' && kind !== 'string') return this.failExpected(what);
    this.take();
    return kind === 'word' ? text : (JSON.parse(text) as string);
  }

  /** A whole number, not negative. */
  count(what: string): number {
    const { kind, text } = this.current;
    if (kind !== 'number' || !/^\d+$/.test(text) || !Number.isSafeInteger(Number(text)))
      return this.failExpected(what);
    this.take();
    return Number(text);
  }

  failExpected(what: string): never {
    const found = this.current.kind === 'end' ? 'the end of the text' : `'${this.current.text}'`;
    return this.fail(`expected ${what}, found ${found}`);
  }

  /** Refuses a name, with the nearest of those that there are. */
  failUnknown(token: Token, message: string, known: Iterable<string>, notes: readonly string[] = []): never {
    const near = nearest(token.text, known);
    return this.fail(near === undefined ? message : `${message}; did you mean '${near}'?`, token, notes);
  }

  fail(message: string, token: Token = this.current, notes: readonly string[] = []): never {
    const before = this.text.slice(0, token.offset).split('\n');
    const span = {
      file: this.file,
      line: before.length,
      column: (before.at(-1) ?? '').length + 1,
      length: Math.max(1, token.text.length),
    };
    throw new UserError(message, { span, notes });
  }

  private scan(): Token {
    blank.lastIndex = this.end;
    const offset = this.end + (blank.exec(this.text)?.[0].length ?? 0);
    if (offset === this.text.length) return { kind: 'end', text: '', offset };
    for (const [kind, pattern] of patterns) {
      pattern.lastIndex = offset;
      const text = pattern.exec(this.text)?.[0];
      if (text === undefined) continue;
      this.end = offset + text.length;
      return { kind, text, offset };
    }
    const text = String.fromCodePoint(this.text.codePointAt(offset) ?? 0);
    const message = text === '"' ? 'expected a JSON string on one line' : `'${text}' begins nothing`;
    return this.fail(message, { kind: 'mark', text, offset });
  }
}
