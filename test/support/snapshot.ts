import { renderError } from '../../src/diagnostic.js';

/**
 * `text` with what differs between machines made alike: the folder `dir` becomes `<dir>`, paths in the project
 * become relative, and the JSON parser's own
 * words, which change with the version of Node, become `<parser's message>`.
 */
export function normalise(text: string, dir: string): string {
  return text
    .replaceAll(dir, '<dir>')
    .replaceAll(`${process.cwd()}/`, '')
    .replaceAll(/(?<=note: )(?:Unexpected|Expected|Unterminated|Bad) .*/g, "<parser's message>");
}

/** What `action` throws, as a user would see it, with `dir` normalised; for snapshots. */
export function renderedError(action: () => unknown, dir: string): string {
  try {
    action();
  } catch (error) {
    return normalise(renderError(error, dir), dir);
  }
  throw new Error('expected an error');
}

/** As `renderedError`, for what a promise rejects with. */
export async function renderedRejection(action: () => Promise<unknown>, dir: string): Promise<string> {
  try {
    await action();
  } catch (error) {
    return normalise(renderError(error, dir), dir);
  }
  throw new Error('expected a rejection');
}
