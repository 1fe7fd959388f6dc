export interface Point {
  readonly label: string;
  readonly x: number;
  /** More than 0. */
  readonly y: number;
  /** Points of one series have one colour. */
  readonly series: string;
}

const width = 720;
const height = 440;
const margin = 64;
const colours = ['#06c', '#690', '#999', '#c50'];

/** 1, 2 and 5 times powers of ten, from below the least to above the greatest. */
function decades(least: number, greatest: number): number[] {
  const from = Math.floor(Math.log10(least));
  const to = Math.ceil(Math.log10(greatest));
  const all = Array.from({ length: to - from + 1 }, (_, i) => [1, 2, 5].map((n) => n * 10 ** (from + i)));
  const ticks = all.flat();
  return ticks.slice(
    ticks.findLastIndex((tick) => tick <= least),
    ticks.findIndex((tick) => tick >= greatest) + 1,
  );
}

/** Labelled points as SVG; y is logarithmic. */
export function plot(points: readonly Point[], xLabel: string, yLabel: string): string {
  const ys = points.map(({ y }) => y);
  const yTicks = decades(Math.min(...ys), Math.max(...ys));
  const [bottom = 1, top = 1] = [yTicks[0], yTicks.at(-1)].map((tick) => Math.log10(tick ?? 1));
  const step = 0.25;
  const xs = points.map(({ x }) => x);
  const left = Math.floor(Math.min(...xs) / step) * step;
  const right = Math.ceil(Math.max(...xs) / step + 0.5) * step;
  const xTicks = Array.from({ length: Math.round((right - left) / step) + 1 }, (_, i) => left + i * step);
  const atX = (x: number): string =>
    (margin + ((x - left) / (right - left)) * (width - 2 * margin)).toFixed(1);
  const atY = (y: number): string =>
    (height - margin - ((Math.log10(y) - bottom) / (top - bottom)) * (height - 2 * margin)).toFixed(1);
  const series = [...new Set(points.map((point) => point.series))];
  const colourOf = (name: string): string => colours[series.indexOf(name)] ?? 'black';
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<rect width="${width}" height="${height}" fill="white"/>`,
    ...xTicks.map(
      (x) =>
        `<text x="${atX(x)}" y="${height - margin + 18}" text-anchor="middle">${String(Number(x.toFixed(2)))}</text>`,
    ),
    ...yTicks.flatMap((y) => [
      `<line x1="${margin}" x2="${width - margin}" y1="${atY(y)}" y2="${atY(y)}" stroke="#ddd"/>`,
      `<text x="${margin - 8}" y="${Number(atY(y)) + 4}" text-anchor="end">${String(Number(y.toPrecision(1)))}</text>`,
    ]),
    ...points.flatMap(({ x, y, label, series: own }) => [
      `<circle cx="${atX(x)}" cy="${atY(y)}" r="4" fill="${colourOf(own)}"/>`,
      `<text x="${Number(atX(x)) + 7}" y="${Number(atY(y)) + 4}" fill="${colourOf(own)}">${label}</text>`,
    ]),
    ...series.map(
      (name, i) =>
        `<text x="${width - margin}" y="${margin - 24 + 16 * i}" text-anchor="end" fill="${colourOf(name)}">● ${name}</text>`,
    ),
    `<text x="${width / 2}" y="${height - 16}" text-anchor="middle">${xLabel}</text>`,
    `<text x="16" y="${height / 2}" text-anchor="middle" transform="rotate(-90 16 ${height / 2})">${yLabel}</text>`,
    '</svg>',
    '',
  ].join('\n');
}
