import { readFileSync } from 'node:fs';
import path from 'node:path';
import { expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session } from 'upgc/runtime';
import { runs } from '../support/devices.js';
import { generateGreedily } from '../support/golden.js';
import { sharedFolder } from '../support/temporary.js';

const examples = [
  { name: 'stories260k', model: 'llama', start: [1], count: 255 },
  { name: 'phi4-shakespeare', model: 'phi4', start: 'ROMEO:\n', count: 200 },
];

const cases = runs().flatMap((run) => examples.map((example) => ({ ...example, ...run })));

it.each(cases)(
  '$name tells the same text everywhere, target $target on $device',
  async ({ name, model, start, count, target, device }) => {
    const out = path.join(sharedFolder(), `${name}-${target}-${device}`);
    await compile({ model: `models/${model}.graph.ts`, weights: `examples/${name}`, target, out });
    const session = await Session.open(out, { device });
    const tokens = typeof start === 'string' ? (session.tokenizer?.encode(start) ?? []) : start;
    const { text } = await generateGreedily(session, tokens, count);
    session.close();
    expect(text).toBe(readFileSync(`test/fixtures/${name}/greedy.txt`, 'utf8'));
  },
);
