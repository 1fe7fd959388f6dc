import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { compile } from 'upgc/compiler';
import { Session, type Execution } from 'upgc/runtime';
import { runs } from '../support/devices.js';
import { sharedFolder } from '../support/temporary.js';

/** The ways to execute a plan differ in how its dispatches reach the device, and in nothing that they compute. */

const text = Array.from({ length: 11 }, (_, i) => (i * 7919 + 13) % 512);
const generated = 4;

interface Executed {
  readonly logits: Float32Array;
  readonly ids: readonly number[];
  readonly submissions: number;
  readonly allocations: number;
}

describe.each(runs())('a plan for $target on $device', ({ target, device }) => {
  let out: string;

  beforeAll(async () => {
    out = path.join(sharedFolder(), target);
    // Chunks of 8, so that the text is read in two steps and the second needs what the caches hold.
    const size = { context: 32, chunk: 8 };
    await compile({ weights: 'examples/stories260k', target, ...size, out });
  });

  async function execute(execution: Execution): Promise<Executed> {
    const session = await Session.open(out, { device, execution });
    try {
      const logits = await session.score(text);
      const before = session.stats;
      const ids: number[] = [];
      for await (const { id } of session.generate(text, { greedy: true, maxTokens: generated, burst: 3 }))
        ids.push(id);
      const { submissions, deviceAllocations } = session.stats;
      return {
        logits,
        ids,
        submissions: submissions - before.submissions,
        allocations: deviceAllocations - before.deviceAllocations,
      };
    } finally {
      session.close();
    }
  }

  it('computes the same bits, dispatch by dispatch, with copies, and with new buffers', async () => {
    const whole = await execute('whole');
    expect(whole.ids).toHaveLength(generated);
    // Two steps of prefill, and one submission of three steps of decode.
    expect([whole.submissions, whole.allocations]).toEqual([3, 0]);
    const session = await Session.open(out, { device });
    const { prefill, decode } = session.plan.entries;
    session.close();
    const dispatches = [prefill, prefill, decode, decode, decode].flatMap((entry) => entry.dispatches);
    const buffers = dispatches.flatMap(({ bindings }) => bindings.filter(({ arena }) => arena !== 'weights'));
    for (const execution of ['dispatches', 'copies', 'allocations'] as const) {
      const { logits, ids, submissions, allocations } = await execute(execution);
      expect(ids, execution).toEqual(whole.ids);
      expect(logits, execution).toEqual(whole.logits);
      expect(submissions, execution).toBe(dispatches.length);
      expect(allocations, execution).toBe(execution === 'allocations' ? buffers.length : 0);
    }
  });
});
