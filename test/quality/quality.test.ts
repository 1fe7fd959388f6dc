import { readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { compile, type CompileOptions } from 'upgc/compiler';
import { compareBuilds, Session } from 'upgc/runtime';
import { policyOf } from '../../src/ir/policy.js';
import { sharedFolder } from '../support/temporary.js';

/**
 * What quantisation costs phi4-shakespeare over the first 5,000 characters of a text that it was not trained on, about
 * 2,200 predictions; `npm run bench:quality` takes all of it. Calibration reads another part.
 */
const heldout = readFileSync('test/fixtures/phi4-shakespeare/heldout.txt', 'utf8');
const fixture = 'test/fixtures/gguf/phi4-shakespeare-Q4_0.gguf';

interface Measured {
  readonly bytes: number;
  readonly kl: number;
}

async function measureAll(
  builds: Readonly<Record<string, CompileOptions>>,
): Promise<ReadonlyMap<string, Measured>> {
  const open = async (name: string, options: CompileOptions): Promise<[Session, number]> => {
    const out = path.join(sharedFolder(), name);
    const summary = await compile({ weights: 'examples/phi4-shakespeare', context: 256, out, ...options });
    return [await Session.open(out), summary?.weightBytes ?? NaN];
  };
  const [reference] = await open('reference', { quantize: 'bf16' });
  const ids = reference.tokenizer?.encode(heldout.slice(0, 5000)) ?? [];
  const measured = new Map<string, Measured>();
  for (const [name, options] of Object.entries(builds)) {
    const [session, bytes] = await open(name, options);
    const { klDivergence: kl } = await compareBuilds(reference, session, ids);
    session.close();
    measured.set(name, { bytes, kl });
  }
  reference.close();
  return measured;
}

describe('the default q4 build of phi4-shakespeare', () => {
  let measured: ReadonlyMap<string, Measured>;
  const of = (name: string): Measured => measured.get(name) ?? { bytes: NaN, kl: NaN };

  beforeAll(async () => {
    const calibrate = path.join(sharedFolder(), 'text.txt');
    writeFileSync(calibrate, heldout.slice(-12000));
    measured = await measureAll({
      q4_0: { weights: fixture },
      nearest: { quantize: policyOf('q4').map((rule) => ({ ...rule, method: 'nearest' })) },
      search: { quantize: 'q4' },
      calibrated: { quantize: 'q4', calibrate },
    });
  });

  it("is at most 0.8 times as far from bf16 as llama.cpp's Q4_0 file, in fewer bytes", () => {
    expect(of('search').kl).toBeLessThanOrEqual(0.8 * of('q4_0').kl);
    expect(of('search').bytes).toBeLessThanOrEqual(of('q4_0').bytes);
    expect(of('search').bytes).toBeLessThanOrEqual(statSync(fixture).size);
  });

  it('is nearer for the scale search', () => {
    expect(of('search').kl).toBeLessThanOrEqual(0.95 * of('nearest').kl);
  });

  // The columns of this model are much alike, so it gains nothing either: calibrate.test.ts has a model that does.
  it('loses nothing by calibration', () => {
    expect(of('calibrated').bytes).toBe(of('search').bytes);
    expect(of('calibrated').kl).not.toBe(of('search').kl);
    expect(of('calibrated').kl).toBeLessThanOrEqual(1.03 * of('search').kl);
  });
});
