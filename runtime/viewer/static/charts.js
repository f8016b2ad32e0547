// Charts of the last minute: stacked areas of the stages' latencies, and lines of age and rate.

const AXIS = 34; // pixels on the left, for the figures of the grid
const FOOT = 16; // pixels below, for the time
const HEAD = 6;
// A gap longer than this, in seconds, is not bridged: nothing came meanwhile.
const LONGEST_BRIDGE_S = 3;
const COLORS = 8;
// The stages of our pipelines keep their colors, whichever of them there are; others follow.
const COLOR_OF_STAGE = { decode: 0, prepare: 1, infer: 2, labels: 3, keypoints: 3, detect: 4, draw: 5, encode: 6, motion: 7 };

/** The three charts, which share a time axis and the place where the pointer is. */
export class Charts {
  #samples = [];
  #now = 0;
  #span = 60;
  #pointerS = null; // how long ago the pointed-at moment is
  #charts;
  #keys = new Map();
  #list = document.getElementById("stages");

  constructor() {
    const stages = (sample) => Object.entries(sample.stages).map(([name, value]) => ({ name, value: value ?? 0 }));
    const one = (value) => (value === null ? [] : [{ name: null, value }]);
    this.#charts = [
      new Chart("latency", stages, "ms"),
      new Chart("age", (sample) => one(sample.age), "ms"),
      new Chart("rate", (sample) => one(sample.fps), "a second"),
    ];
    const redraw = () => this.draw();
    for (const chart of this.#charts) {
      new ResizeObserver(redraw).observe(chart.canvas);
      chart.canvas.addEventListener("pointermove", (event) => this.#point(chart.timeAt(event.offsetX, this.#span)));
      chart.canvas.addEventListener("pointerleave", () => this.#point(null));
    }
    document.addEventListener("themechange", redraw);
  }

  /** Begin anew, with so many seconds across. */
  clear(span = this.#span) {
    this.#samples = [];
    this.#span = span;
  }

  /** Add samples; `now` is the time on their clock. */
  add(samples, now) {
    this.#now = now;
    this.#samples.push(...samples);
    const first = this.#samples.findIndex((sample) => sample.time >= now - this.#span - 1);
    this.#samples.splice(0, first < 0 ? this.#samples.length : first);
    this.draw();
  }

  /** The newest sample. */
  get newest() {
    return this.#samples.at(-1);
  }

  /** The sample that is pointed at, else the newest one. */
  get #read() {
    if (this.#pointerS === null) return this.newest;
    const time = this.#now - this.#pointerS;
    const distance = (sample) => Math.abs(sample.time - time);
    return this.#samples.reduce((best, each) => (!best || distance(each) < distance(best) ? each : best), undefined);
  }

  draw() {
    const view = { samples: this.#samples, now: this.#now, span: this.#span, pointerS: this.#pointerS };
    for (const chart of this.#charts) chart.draw(view, this.#read);
    this.#listStages(this.#read?.stages ?? {});
  }

  #point(secondsAgo) {
    this.#pointerS = secondsAgo;
    this.draw();
  }

  #listStages(durations) {
    const stages = Object.entries(durations);
    const names = Object.keys(durations);
    if (names.length && names.join("\n") !== [...this.#keys.keys()].join("\n")) this.#buildKeys(names);
    for (const [name, value] of stages) this.#keys.get(name).textContent = value === null ? "–" : figure(value);
  }

  #buildKeys(names) {
    this.#keys.clear();
    const items = names.map((name, index) => {
      const item = document.createElement("li");
      const value = document.createElement("b");
      item.style.setProperty("--series", `var(--series-${colorOf(name, index)})`);
      item.append(name, " ", value);
      this.#keys.set(name, value);
      return item;
    });
    this.#list.replaceChildren(...items);
  }
}

class Chart {
  /** @param values names and values of a sample, to be stacked in this order. */
  constructor(id, values, unit) {
    this.canvas = document.getElementById(id);
    this.reading = document.getElementById(`${id}-reading`);
    this.name = this.canvas.getAttribute("aria-label");
    this.values = values;
    this.unit = unit;
  }

  /** How many seconds ago the moment at a place of the canvas is. */
  timeAt(x, span) {
    const width = this.canvas.clientWidth - AXIS;
    return Math.min(Math.max((1 - (x - AXIS) / width) * span, 0), span);
  }

  draw({ samples, now, span, pointerS }, read) {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    const scale = devicePixelRatio;
    this.canvas.width = Math.round(width * scale);
    this.canvas.height = Math.round(height * scale);
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const points = samples.map((sample) => ({ time: sample.time, values: this.values(sample) }));
    const sums = points.map((point) => total(point.values));
    const top = niceTop(Math.max(0, ...sums));
    const place = {
      x: (time) => AXIS + (width - AXIS) * (1 - (now - time) / span),
      y: (value) => HEAD + (height - HEAD - FOOT) * (1 - value / top),
    };
    const ink = inks();
    drawGrid(pen, place, { width, height, top, span, ink });
    pen.save();
    pen.beginPath();
    pen.rect(AXIS, 0, width - AXIS, height);
    pen.clip();
    for (const part of unbroken(points)) drawStack(pen, place, part, ink);
    if (pointerS !== null) drawPointer(pen, place.x(now - pointerS), height - FOOT, ink.soft);
    pen.restore();
    this.#describe(read ? this.values(read) : []);
  }

  #describe(values) {
    const text = values.length ? `${figure(total(values))} ${this.unit}` : "nothing yet";
    this.reading.textContent = values.length ? figure(total(values)) : "";
    this.canvas.setAttribute("aria-label", `${this.name} of the last minute: ${text}`);
  }
}

function drawGrid(pen, { y }, { width, height, top, span, ink }) {
  pen.font = `11px ${ink.font}`;
  pen.lineWidth = 1;
  pen.textBaseline = "middle";
  pen.textAlign = "right";
  for (const value of [0, top / 2, top]) {
    const at = Math.round(y(value)) + 0.5;
    pen.strokeStyle = value ? ink.faint : ink.line;
    pen.beginPath();
    pen.moveTo(AXIS, at);
    pen.lineTo(width, at);
    pen.stroke();
    pen.fillStyle = ink.soft;
    pen.fillText(String(Number(value.toPrecision(3))), AXIS - 6, at);
  }
  pen.textBaseline = "bottom";
  pen.textAlign = "left";
  pen.fillText(`−${span} s`, AXIS, height);
  pen.textAlign = "right";
  pen.fillText("now", width, height);
}

/** Draw areas on top of each other; a single one gets a line above a paler area. */
function drawStack(pen, { x, y }, points, { series, fill }) {
  const count = Math.max(...points.map((point) => point.values.length));
  for (let index = count - 1; index >= 0; index--) {
    const upper = (point) => y(total(point.values.slice(0, index + 1)));
    const lower = (point) => y(total(point.values.slice(0, index)));
    const name = points.at(-1).values[index]?.name ?? null;
    pen.beginPath();
    points.forEach((point, at) => pen[at ? "lineTo" : "moveTo"](x(point.time), upper(point)));
    const line = name === null ? fill : null;
    if (line) {
      pen.strokeStyle = line;
      pen.lineWidth = 1.75;
      pen.lineJoin = "round";
      pen.stroke();
    }
    for (const point of [...points].reverse()) pen.lineTo(x(point.time), lower(point));
    pen.closePath();
    pen.globalAlpha = line ? 0.18 : 0.92;
    pen.fillStyle = line ?? series[colorOf(name, index)];
    pen.fill();
    pen.globalAlpha = 1;
  }
}

function drawPointer(pen, x, bottom, color) {
  pen.strokeStyle = color;
  pen.lineWidth = 1;
  pen.setLineDash([3, 3]);
  pen.beginPath();
  pen.moveTo(x, 0);
  pen.lineTo(x, bottom);
  pen.stroke();
  pen.setLineDash([]);
}

/** Split points where nothing came for a while, or where there is nothing to draw. */
function unbroken(points) {
  const parts = [];
  let last = null;
  for (const point of points) {
    if (!point.values.length) continue;
    if (!last || point.time - last.time > LONGEST_BRIDGE_S) parts.push([]);
    parts.at(-1).push(point);
    last = point;
  }
  return parts;
}

function inks() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  return {
    soft: color("--soft"),
    line: color("--line-strong"),
    faint: color("--line"),
    fill: color("--fill"),
    font: getComputedStyle(document.body).fontFamily,
    series: Array.from({ length: COLORS }, (_, index) => color(`--series-${index}`)),
  };
}

/** The end of an axis: 1, 2 or 5 times a power of ten, and their halves in between. */
function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * power).find((top) => top >= value * 1.05) ?? 20 * power;
}

/** A figure with as many digits as it deserves. */
export function figure(value) {
  if (value >= 100) return value.toFixed(0);
  return value.toFixed(value >= 10 ? 1 : value > 0 ? 2 : 0).replace(/\.0+$/, "");
}

function total(values) {
  return values.reduce((sum, { value }) => sum + value, 0);
}

function colorOf(stage, index) {
  return (COLOR_OF_STAGE[stage] ?? index) % COLORS;
}
