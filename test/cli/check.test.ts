import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { temporaryFolder } from '../support/temporary.js';

/** Runs the built `upgc check` in a folder of its own. */
function check(
  cwd: string,
  ...args: readonly string[]
): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [path.resolve('dist/cli/main.js'), 'check', ...args],
      { cwd },
      (error, stdout, stderr) => {
        resolve({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, stdout, stderr });
      },
    );
  });
}

const head = '#include <metal_stdlib>\nusing namespace metal;\n';
const good = `${head}kernel void k(device float* x [[buffer(0)]]) { x[0] = exp(x[0]); }\n`;
const trap = good.replace('exp(x[0])', 'float(isnan(x[0]))');
const bad = `${head}\tkernel void k(device float* x [[buffer(31)]]) {\n    threadgroup float* p = x;\n}\n`;

function folderWith(files: { readonly [name: string]: string }): string {
  const folder = temporaryFolder();
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  return folder;
}

describe('upgc check', () => {
  it('says nothing about good kernels', async () => {
    const folder = folderWith({ 'a.metal': good, 'b.metal': good });
    expect(await check(folder, 'a.metal', 'b.metal')).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  it('shows each finding in its line and fails', async () => {
    const folder = folderWith({ 'good.metal': good, 'bad.metal': bad });
    expect(await check(folder, 'good.metal', 'bad.metal')).toEqual({
      code: 1,
      stdout: `error: buffer 31 does not exist [index-range]
  ┌─ bad.metal:3:34
3 │ kernel void k(device float* x [[buffer(31)]]) {
  │                                 ^^^^^^
  note: use 0 to 30; put further values into one structure

error: \`device float*\` cannot become \`threadgroup float*\` [address-space]
  ┌─ bad.metal:4:24
4 │ threadgroup float* p = x;
  │                    ^
  note: declare the pointer with device, or copy what it points to

`,
      stderr: '',
    });
  });

  it('does not fail at a warning', async () => {
    const { code, stdout } = await check(folderWith({ 'a.metal': trap }), 'a.metal');
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /^warning: isnan may always give one answer .* \[fast-math\]\n {2}┌─ a\.metal:3:61\n/,
    );
  });

  it('prints JSON', async () => {
    const folder = folderWith({ 'good.metal': good, 'trap.metal': trap });
    const { code, stdout } = await check(folder, '--json', 'good.metal', 'trap.metal');
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual([
      {
        file: 'trap.metal',
        rule: 'fast-math',
        severity: 'warning',
        message: "isnan may always give one answer under Metal's default fast math",
        fix: 'compile with MTLMathModeSafe (or -fno-fast-math), or test the bits of as_type<uint>(x)',
        line: 3,
        column: 61,
        length: 5,
      },
    ]);
    expect(await check(folder, '--json', 'good.metal')).toEqual({ code: 0, stdout: '[]\n', stderr: '' });
  });

  it('names a file that is not there', async () => {
    const { code, stderr } = await check(temporaryFolder(), 'no.metal');
    expect({ code, stderr }).toEqual({
      code: 1,
      stderr: 'error: cannot read no.metal: no such file or folder\n',
    });
  });
});
