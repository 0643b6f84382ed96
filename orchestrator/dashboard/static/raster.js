// Many lines as one picture: how many of them cross each pixel, exactly. A thousand strokes of a canvas take seconds; counting
// takes a tenth of one. Nothing is left out: a pixel that one line crosses shows.

// What the lines cross, in device pixels: counts [column × height + row]. steps and lines over them; NaN is a gap that is
// bridged. x: step → column, y: value → row, both with fractions.
export function crossings(steps, lines, x, y, width, height) {
  const counts = new Uint16Array(width * height);
  const columns = Float64Array.from(steps, x), low = new Float64Array(width), high = new Float64Array(width);
  const [zero, slope] = [y(0), y(1) - y(0)];  // rows are linear in values: a call for each point would be most of the time
  const reach = (column, a, b) => {
    if (a > b) [a, b] = [b, a];
    if (a < low[column]) low[column] = a;
    if (b > high[column]) high[column] = b;
  };
  for (const line of lines) {
    low.fill(Infinity); high.fill(-Infinity);
    let fromX = NaN, fromY = 0;
    for (let j = 0; j < line.length; j += 1) {
      const value = line[j];
      if (value === null || Number.isNaN(value)) continue;
      const toX = columns[j], toY = zero + slope * value;
      if (Number.isNaN(fromX)) { if (toX >= 0 && toX < width) reach(Math.floor(toX), toY, toY); }
      else if (toX >= 0 && fromX < width) {
        const first = Math.max(Math.floor(fromX), 0), last = Math.min(Math.floor(toX), width - 1);
        if (first === last && fromX >= 0 && toX < width) reach(first, fromY, toY);
        else {
          const rise = (toY - fromY) / (toX - fromX);
          for (let c = first; c <= last; c += 1) {
            const a = c <= fromX ? fromY : fromY + rise * (c - fromX), b = c + 1 >= toX ? toY : fromY + rise * (c + 1 - fromX);
            reach(c, a, b);
          }
        }
      }
      fromX = toX; fromY = toY;
    }
    for (let c = 0; c < width; c += 1) {
      if (low[c] > high[c]) continue;
      const from = Math.max(Math.floor(low[c]), 0), to = Math.min(Math.floor(high[c]), height - 1), base = c * height;
      for (let r = from; r <= to; r += 1) counts[base + r] += 1;
    }
  }
  return counts;
}

// A canvas of the crossings of several groups of lines, each in its own colour: [{counts, rgb}]. `share`: how much one line
// covers; n of them cover 1 - (1 - share)^n.
export function painted(groups, width, height, share) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d"), image = context.createImageData(width, height), pixels = image.data;
  const cover = Uint8ClampedArray.from({ length: 256 }, (_, n) => 255 * (1 - (1 - share) ** n));
  for (let c = 0; c < width; c += 1) for (let r = 0; r < height; r += 1) {
    let n = 0, red = 0, green = 0, blue = 0;
    for (const { counts, rgb } of groups) {
      const here = counts[c * height + r];
      if (here) { n += here; red += here * rgb[0]; green += here * rgb[1]; blue += here * rgb[2]; }
    }
    if (!n) continue;
    const at = 4 * (r * width + c);
    pixels[at] = red / n; pixels[at + 1] = green / n; pixels[at + 2] = blue / n; pixels[at + 3] = cover[Math.min(n, 255)];
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
