/**
 * What a build makes of a text, for compare.py: the logits of every position to a file, row-major f32, and the ids that
 * follow it greedily to stdout, as a JSON list.
 */
import { writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Session } from '#dist/runtime/session.js';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    device: { type: 'string', default: 'cuda' },
    tokens: { type: 'string', default: '' },
    follow: { type: 'string', default: '0' },
    logits: { type: 'string', default: '' },
  },
});
const [build] = positionals;
if (build === undefined || values.logits === '' || values.tokens === '')
  throw new Error('usage: score.js BUILD --tokens IDS --logits FILE [--follow COUNT] [--device NAME]');
const tokens = values.tokens.split(',').map(Number);
const session = await Session.open(build, { device: values.device });
writeFileSync(values.logits, await session.score(tokens));
const ids: number[] = [];
const options = { maxTokens: Number(values.follow), greedy: true, ignoreEos: true };
for await (const { id } of session.generate(tokens, options)) ids.push(id);
session.close();
console.log(JSON.stringify(ids));
