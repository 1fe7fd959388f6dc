import { expect, it } from 'vitest';
import {
  add,
  argmax,
  embed,
  gelu,
  layerNorm,
  linear,
  positions,
  rmsNorm,
  scale,
  softmax,
  tokens,
  weight,
  type Tensor,
} from 'upgc';
import { runs } from '../support/devices.js';
import { deviceError, tiny } from '../support/tiny.js';
import { temporaryFolder } from '../support/temporary.js';

/** Kernels over whole rows, on rows that ordinary models seldom have. */

const width = 70;
const embedded = (): Tensor => embed(tokens(), weight('table', [11, width]));
const logits = (x: Tensor): Tensor => linear(x, weight('head', [11, Number(x.type.shape[1])]));

const rows: Readonly<Record<string, () => Tensor>> = {
  'a norm of a row so small that eps decides': () =>
    logits(rmsNorm(scale(embedded(), { by: 1e-4 }), weight('gain', [width]), { eps: 1e-6 })),
  'a norm, by itself, of a row so small that eps decides': () =>
    logits(gelu(rmsNorm(scale(embedded(), { by: 1e-4 }), weight('gain', [width]), { eps: 1e-6 }))),
  'a layer norm of rows whose mean is far from 0': () =>
    logits(
      layerNorm(add(embedded(), weight('far', [width])), weight('gain', [width]), {
        bias: weight('bias', [width]),
        eps: 1e-5,
      }),
    ),
  'the greatest of a position': () =>
    logits(add(embedded(), embed(argmax(positions(weight('wpe', [64, 9]))), weight('third', [11, width])))),
  'a softmax of scores that e^x cannot hold': () => logits(softmax(scale(embedded(), { by: 300 }))),
  'the first of equal elements': () =>
    logits(embed(argmax(scale(embedded(), { by: 0 })), weight('second', [width, 9]))),
  'the greatest of elements': () => logits(embed(argmax(embedded()), weight('second', [width, 9]))),
  'a gelu of large and small elements': () =>
    logits(add(gelu(scale(embedded(), { by: 4 })), gelu(scale(embedded(), { by: 0.1 })))),
};

it.each(Object.entries(rows).flatMap(([name, graph]) => runs().map((run) => ({ name, graph, ...run }))))(
  '$name, target $target on $device',
  async ({ graph, target, device }) => {
    const error = await deviceError(temporaryFolder(), tiny(graph), { target, device }, [1, 5, 3, 10]);
    // A product of rows of 70, after a reduction over as many: each sum rounds by at most 70 · 2^-24 of its terms. e^x turns
    // the rounding of a score of up to 300 into as much of its result.
    expect(error).toBeLessThanOrEqual((2 * width + 300) * 2 ** -24);
  },
);
