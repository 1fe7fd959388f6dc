import { URL, fileURLToPath } from 'node:url';
import js from '@eslint/js';
import { defineConfig } from 'eslint/config';
import tseslint from 'typescript-eslint';

export default defineConfig({ ignores: ['dist', 'build', 'native/build'] }, js.configs.recommended, {
  files: ['**/*.ts'],
  extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
  languageOptions: {
    parserOptions: {
      // The one program that holds src, test, models and examples.
      project: 'test/tsconfig.json',
      tsconfigRootDir: fileURLToPath(new URL('.', import.meta.url)),
    },
  },
  rules: {
    // Messages are full of shapes and sizes.
    '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
    // `while (true)` reads better than a flag in parsers and read loops.
    '@typescript-eslint/no-unnecessary-condition': [
      'error',
      { allowConstantLoopConditions: 'only-allowed-literals' },
    ],
    // `{ [name: string]: Tensor }` says what its keys are; `Record<string, Tensor>` does not.
    '@typescript-eslint/consistent-indexed-object-style': 'off',
    // Brackets mark keys that come from a file: `config['rope_theta']`.
    '@typescript-eslint/dot-notation': ['error', { allowIndexSignaturePropertyAccess: true }],
    // `() => rmSync(folder)` says what it does.
    '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
    // A table's unused parameter keeps its place: `(_node, shape) => …`.
    '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
    '@typescript-eslint/switch-exhaustiveness-check': 'error',
    '@typescript-eslint/consistent-type-imports': 'error',
  },
});
