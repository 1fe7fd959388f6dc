import { describe, expect, it } from 'vitest';
import { checkPolicy, policyOf, ruleFor, type Role } from '../../src/ir/policy.js';
import { renderedError } from '../support/snapshot.js';

const none: ReadonlySet<Role> = new Set();
const messageOf = (action: () => unknown): string => renderedError(action, process.cwd());

describe('policies', () => {
  it('have names', () => {
    expect(policyOf('q4')).toEqual([
      { role: 'lm_head', format: 'q5g32' },
      { role: 'embedding', format: 'q5g32' },
      { role: 'qkv', format: 'q5g32' },
      { match: '*', format: 'q4g32' },
    ]);
    expect(policyOf('q8')).toEqual([{ match: '*', format: 'q8g32' }]);
    for (const format of ['q4g64b', 'q6k', 'bf16', 'stored'])
      expect(policyOf(format)).toEqual([{ match: '*', format }]);
  });

  it.each([
    ['*', 'any.name', true],
    ['*.mlp.*', 'model.layers.0.mlp.up_proj.weight', true],
    ['*.mlp.*', 'model.mlp', false],
    ['model.*.weight', 'model.weight', false],
    ['model.*.weight', 'model..weight', true],
    ['*a*a', 'a', false],
    ['*a*a', 'aa', true],
    ['exact', 'exact', true],
    ['exact', 'exact.weight', false],
    ['a.b', 'aXb', false],
    ['*.weight', 'x.weights', false],
  ])('%s and %s', (match, name, fits) => {
    expect(ruleFor([{ match, format: 'f32' }], name, none) !== undefined).toBe(fits);
  });

  it('take the first rule that fits, of a name and a role', () => {
    const policy = checkPolicy(
      [
        { match: 'x.*', role: 'embedding', format: 'q8g32' },
        { role: 'lm_head', format: 'q6g32', method: 'nearest' },
        { match: 'x.*', format: 'stored' },
      ],
      'policy.json',
    );
    const format = (name: string, ...roles: Role[]) => ruleFor(policy, name, new Set(roles))?.format;
    expect(format('x.a', 'embedding', 'lm_head')).toBe('q8g32');
    expect(format('y.a', 'embedding', 'lm_head')).toBe('q6g32');
    expect(format('x.a', 'lm_head')).toBe('q6g32');
    expect(format('x.a')).toBe('stored');
    expect(format('y.a', 'embedding')).toBeUndefined();
  });

  it('are refused with what is wrong', () => {
    expect(messageOf(() => policyOf('q4g23'))).toMatchInlineSnapshot(`
      "error: there is no quantisation 'q4g23'
       note: did you mean 'q4g32'?
       note: there are q4, q5, q6, q8, stored, f32, f16, bf16, q8g32, q6g32, q5g32, q5g32b, q4g32, q4g32b, q4g64, q4g64b, q6k, q5k, q4k, and files of rules (*.json)"
    `);
    expect(messageOf(() => policyOf('xyz'))).toMatchInlineSnapshot(`
      "error: there is no quantisation 'xyz'
       note: there are q4, q5, q6, q8, stored, f32, f16, bf16, q8g32, q6g32, q5g32, q5g32b, q4g32, q4g32b, q4g64, q4g64b, q6k, q5k, q4k, and files of rules (*.json)"
    `);
    expect(messageOf(() => checkPolicy({}, 'policy.json'))).toMatchInlineSnapshot(`
      "error: policy.json is not a list of rules
       note: Invalid input: expected array, received object
       note: a rule is { "match": "*.mlp.*", "format": "q4g32" }, or has "role": "embedding", "lm_head" or "qkv"; see docs/weights.md"
    `);
    expect(
      messageOf(() =>
        checkPolicy(
          [
            { match: '*', format: 'q3' },
            { match: '', format: 'q8g32' },
            { format: 'q8g32' },
            { match: '*', format: 'q8g32', methd: 'search' },
          ],
          'policy.json',
        ),
      ),
    ).toMatchInlineSnapshot(`
      "error: policy.json is not a list of rules
       note: rule 0.format: Invalid option: expected one of "stored"|"f32"|"f16"|"bf16"|"q8g32"|"q6g32"|"q5g32"|"q5g32b"|"q4g32"|"q4g32b"|"q4g64"|"q4g64b"|"q6k"|"q5k"|"q4k"
       note: rule 1.match: Too small: expected string to have >=1 characters
       note: rule 2: needs match or role
       note: rule 3: Unrecognized key: "methd"
       note: a rule is { "match": "*.mlp.*", "format": "q4g32" }, or has "role": "embedding", "lm_head" or "qkv"; see docs/weights.md"
    `);
  });
});
