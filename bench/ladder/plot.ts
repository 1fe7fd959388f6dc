export interface Series {
  readonly name: string;
  /** One for each row, from the top; more than 0. */
  readonly ranges: readonly { readonly low: number; readonly middle: number; readonly high: number }[];
}

const width = 760;
const rowHeight = 34;
const [left, right, top, bottom] = [300, 40, 48, 48];
const colours = ['#06c', '#c50', '#690'];

/** Ranges as SVG, a row for each label, with the middle of each as a point and a number; x is logarithmic. */
export function plot(labels: readonly string[], series: readonly Series[], xLabel: string): string {
  const all = series.flatMap(({ ranges }) => ranges.flatMap(({ low, high }) => [low, high]));
  const from = Math.floor(Math.log10(Math.min(...all)));
  const to = Math.ceil(Math.log10(Math.max(...all)));
  const height = top + bottom + rowHeight * labels.length;
  const atX = (x: number): string =>
    (left + ((Math.log10(x) - from) / (to - from)) * (width - left - right)).toFixed(1);
  const atY = (row: number): number => top + rowHeight * (row + 0.5);
  const ticks = Array.from({ length: to - from + 1 }, (_, i) => 10 ** (from + i));
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    ...ticks.flatMap((tick) => [
      `<line x1="${atX(tick)}" x2="${atX(tick)}" y1="${top}" y2="${height - bottom}" stroke="#ddd"/>`,
      `<text x="${atX(tick)}" y="${height - bottom + 16}" text-anchor="middle">${String(Number(tick.toPrecision(1)))}</text>`,
    ]),
    ...labels.map((label, row) => `<text x="12" y="${atY(row) + 4}">${label}</text>`),
    ...series.flatMap(({ name, ranges }, i) => [
      `<g fill="${colours[i] ?? 'black'}" stroke="none">`,
      `<text x="${width - right}" y="${16 + 16 * i}" text-anchor="end">● ${name}</text>`,
      ...ranges.flatMap(({ low, middle, high }, row) => [
        `<line x1="${atX(low)}" x2="${atX(high)}" y1="${atY(row)}" y2="${atY(row)}" stroke="${colours[i] ?? 'black'}" stroke-width="2"/>`,
        `<circle cx="${atX(middle)}" cy="${atY(row)}" r="4"/>`,
        `<text x="${atX(middle)}" y="${atY(row) + (i === 0 ? -7 : 15)}" text-anchor="middle" font-size="10">${String(Number(middle.toPrecision(3)))}</text>`,
      ]),
      '</g>',
    ]),
    `<text x="${(left + width - right) / 2}" y="${height - 10}" text-anchor="middle">${xLabel}</text>`,
    '</svg>',
    '',
  ].join('\n');
}
