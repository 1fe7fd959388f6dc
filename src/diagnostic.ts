import { readFileSync } from 'node:fs';
import path from 'node:path';

/** A place in a user's file. Lines and columns count from 1; `length` is in characters. */
export interface Span {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly length: number;
}

export interface DiagnosticDetail {
  /** Where the fault is. */
  readonly span?: Span | undefined;
  /** Where the fault sits in the model, e.g. `model.layers.0`. */
  readonly within?: string | undefined;
  /** What to know or do, one line each. */
  readonly notes?: readonly string[] | undefined;
}

abstract class Diagnostic extends Error {
  readonly detail: DiagnosticDetail;

  constructor(message: string, detail: DiagnosticDetail = {}) {
    super(message);
    this.detail = detail;
  }
}

/** Something the user can mend: their model, their checkpoint, their command line. */
export class UserError extends Diagnostic {
  override name = 'UserError';
}

/** Legal input that this version cannot handle. */
export class Unsupported extends Diagnostic {
  override name = 'Unsupported';
}

/** A broken invariant of ours. */
export class CompilerBug extends Diagnostic {
  override name = 'CompilerBug';
}

/** `models/phi4.graph.ts:9:3`, relative to `cwd` when the file lies inside it. */
export function formatSpan(span: Span, cwd = process.cwd()): string {
  return `${relativeTo(cwd, span.file)}:${span.line}:${span.column}`;
}

/** The path as a user would type it: relative when it lies inside `cwd`, absolute otherwise. */
export function relativeTo(cwd: string, file: string): string {
  const relative = path.relative(cwd, file);
  return relative === '' || relative.startsWith('..') || path.isAbsolute(relative) ? file : relative;
}

/** Renders any thrown value for a terminal: the message, the source line with a caret, then the notes. */
export function renderError(error: unknown, cwd = process.cwd()): string {
  if (!(error instanceof Diagnostic)) {
    return `internal error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
  }
  const label =
    error instanceof CompilerBug ? 'bug in upgc' : error instanceof Unsupported ? 'unsupported' : 'error';
  const { span } = error.detail;
  return render(`${label}: ${error.message}`, error.detail, span && sourceLine(span), cwd);
}

/** Renders something found in a text whose line `source` holds it, in the same form. */
export function renderFinding(
  { severity, rule, message, fix }: { readonly [part in 'severity' | 'rule' | 'message' | 'fix']: string },
  span: Span,
  source: string | undefined,
  cwd = process.cwd(),
): string {
  return render(`${severity}: ${message} [${rule}]`, { span, notes: [fix] }, source, cwd);
}

function render(
  heading: string,
  { span, within, notes = [] }: DiagnosticDetail,
  source: string | undefined,
  cwd: string,
): string {
  const lines = [heading];
  let margin = '';
  if (span) {
    margin = ' '.repeat(String(span.line).length);
    lines.push(`${margin} ┌─ ${formatSpan(span, cwd)}`);
    const place = within === undefined ? '' : ` in ${within}`;
    if (source !== undefined) {
      const lead = source.length - source.trimStart().length;
      lines.push(`${span.line} │ ${source.slice(lead)}`);
      lines.push(
        `${margin} │ ${' '.repeat(Math.max(0, span.column - 1 - lead))}${'^'.repeat(span.length)}${place}`,
      );
    }
  }
  for (const note of notes) lines.push(`${margin} note: ${note}`);
  return lines.join('\n');
}

function sourceLine(span: Span): string | undefined {
  try {
    return readFileSync(span.file, 'utf8').split(/\r?\n/)[span.line - 1];
  } catch {
    return undefined;
  }
}

/** The entry of `candidates` nearest to `wanted` by edit distance, if it is near enough to be a slip. */
export function nearest(wanted: string, candidates: Iterable<string>): string | undefined {
  let best: string | undefined;
  let bestDistance = Math.max(2, Math.floor(wanted.length / 4)) + 1;
  for (const candidate of candidates) {
    const distance = editDistance(wanted, candidate, bestDistance);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best;
}

/** Checks a name the user gave against those that there are; `one` and `many` say what it is a name of. */
export function checkName(one: string, many: string, name: string, known: readonly string[]): void {
  if (known.includes(name)) return;
  const near = nearest(name, known);
  throw new UserError(
    `there is no ${one} '${name}'${near === undefined ? '' : `; did you mean '${near}'?`}`,
    {
      notes: [`${many}: ${known.join(', ')}`],
    },
  );
}

function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitute = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitute, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? limit;
}
